#!/bin/bash
# guest: reboot
# phases: off off
# Containers that are started again without anybody asking: after their ends, over a restart of holmd that comes while they wait, and after a reboot.

count() { holmctl show "$1" -p RestartCount --value; }
state() { holmctl show "$1" -p State --value; }
next() { holmctl show "$1" -p NextRestartUSec --value; }
waits() { [ "$(next "$1")" -gt 0 ]; }

phase_1() {
    # Back-off: the waits grow, and a stop ends it.
    holmctl run -d --name loops --restart on-failure --restart-delay 0.1 --restart-steps 2 --restart-max-delay 2 busybox sh -c 'exit 3' >/dev/null
    at_least() { [ "$(count "$1")" -ge "$2" ]; }
    eventually 20 at_least loops 3
    eventually 10 waits loops
    assert_eq starting "$(state loops)" "the state while it waits"
    assert_has "$(holmctl status loops)" "(on-failure), the next in" "status"
    holmctl list | grep -q '^loops ' || fail "one that waits is not listed"
    holmctl stop loops
    assert_eq failed "$(state loops)" "the state after a stop"
    before=$(count loops)
    always 3 sh -c "[ \"\$(holmctl show loops -p State --value)\" = failed ]"
    assert_eq "$before" "$(count loops)" "RestartCount after a stop"
    refute holmctl run -d --rm --restart always busybox true
    holmctl rm loops

    # An end that the policy does not cover, a clean signal, and a limit.
    holmctl run -d --name fine --restart on-failure busybox true >/dev/null
    now() { state fine; }; eventually_eq 10 stopped now
    assert_eq 0 "$(count fine)" "RestartCount after a success"
    holmctl rm fine
    holmctl run -d --name limited --restart on-failure:2 --restart-delay 0.1 busybox sh -c 'exit 3' >/dev/null
    now() { state limited; }; eventually_eq 20 failed now
    assert_eq 2 "$(count limited)" "RestartCount at the limit"
    assert_has "$(holmctl show limited -p StatusText --value)" "given up" "StatusText at the limit"
    journalctl -b -q -o json MESSAGE_ID=a41d3f2f6b5e4e0f8d3c7a90e1b65c27 | grep -q '"CONTAINER":"limited"' || fail "no entry says that it was given up"
    holmctl rm limited

    # A kill is followed by a new run, in a scope of its own; a stop of the scope by systemctl is somebody's stop.
    holmctl run -d --name stays --restart always --restart-delay 0.2 busybox sleep 1000 >/dev/null
    leader=$(holmctl show stays -p Leader --value)
    holmctl kill -s KILL stays
    again() { [ "$(holmctl show stays -p Leader --value)" != "$leader" ] && [ "$(holmctl show stays -p State --value)" = running ]; }
    eventually 10 again
    assert_eq 1 "$(count stays)" "RestartCount after a kill"
    holmctl rm -f stays
    holmctl run -d --name stays --restart always --restart-delay 0.2 busybox sh -c 'trap "exit 0" TERM; echo >/ready; while :; do sleep 0.1; done' >/dev/null
    eventually 10 holmctl exec stays test -e /ready
    systemctl stop holm-stays.scope
    now() { state stays; }; eventually_eq 10 stopped now
    always 2 sh -c "[ \"\$(holmctl show stays -p State --value)\" = stopped ]"

    # A holmd that is killed while it waits: the next one goes on waiting, for as long as was left.
    holmctl run -d --name waiting --restart on-failure --restart-delay 4 -v /run:/host-run busybox sh -c 'test -e /host-run/go && exec sleep 1000; exit 3' >/dev/null
    eventually 10 waits waiting
    due=$(next waiting)
    systemctl kill -s KILL holmd.service
    systemctl stop holmd.service
    systemctl start holmd.service
    assert_eq "$due" "$(next waiting)" "the next try after a restart of holmd"
    touch /run/go
    now() { state waiting; }; eventually_eq 10 running now
    test "$(holmctl show waiting -p StartedUSec --value)" -ge "$due" || fail "it did not wait"
    holmctl rm -f waiting

    # An end while no holmd runs.
    holmctl run -d --name unseen --restart on-failure --restart-delay 0.1 busybox sleep 1000 >/dev/null
    leader=$(holmctl show unseen -p Leader --value)
    systemctl stop holmd.service
    kill -KILL "$leader"
    systemctl start holmd.service
    now() { state unseen; }; eventually_eq 10 running now
    holmctl rm -f unseen

    holmctl run -d --name comes-back --restart always busybox sleep 1000 >/dev/null
    holmctl run -d --name was-stopped --restart always busybox sleep 1000 >/dev/null
    holmctl run -d --name only-failures --restart on-failure busybox sleep 1000 >/dev/null
    holmctl stop was-stopped
}

phase_2() {
    now() { state comes-back; }; eventually_eq 20 running now
    # Its payload ignored the stop signal.
    assert_eq failed "$(state was-stopped)" "one that somebody had stopped"
    case $(state only-failures) in stopped | failed) ;; *) fail "one that ended with the system is $(state only-failures)" ;; esac
    refute systemctl is-failed holm-comes-back.scope
    for name in comes-back was-stopped only-failures stays; do holmctl rm -f "$name"; done
}
