#!/bin/bash
# guest: reboot
# phases: off off
# An orderly shutdown: every container gets its own stop signal and its own time, the pool is given back, and the next boot knows how each ended.

log=/var/log/shutdown
phase_1() {
    mkdir -p "$log"
    for name in one two; do
        holmctl run -d --name "$name" -v "$log:/log" busybox \
            sh -c "trap 'echo TERM >>/log/$name; sleep 1; echo ended >>/log/$name; exit 7' TERM; echo ready >>/log/$name; while :; do sleep 0.1; done" >/dev/null
    done
    holmctl run -d --name deaf --stop-timeout 4 -v "$log:/log" busybox \
        sh -c "trap 'echo TERM >>/log/deaf' TERM; echo ready >>/log/deaf; while :; do sleep 0.1; done" >/dev/null
    for name in one two deaf; do eventually 10 grep -q ready "$log/$name"; done
}
phase_2() {
    journalctl -b -1 --no-pager -o short-monotonic -u holmd.service -u 'holm-*.scope' >/tmp/before
    local errors
    for name in one two; do
        assert_eq "ready TERM ended" "$(tr '\n' ' ' <"$log/$name" | sed 's/ $//')" "what $name saw"
        assert_eq 7 "$(holmctl show "$name" -p ExitStatus --value)" "exit status of $name"
        assert_eq exit-code "$(holmctl show "$name" -p Result --value)" "Result of $name"
    done
    assert_eq "ready TERM" "$(tr '\n' ' ' <"$log/deaf" | sed 's/ $//')" "what deaf saw"
    assert_eq 137 "$(holmctl show deaf -p ExitStatus --value)" "exit status of deaf"
    assert_eq timeout "$(holmctl show deaf -p Result --value)" "Result of deaf"
    for name in one two deaf; do
        case $(holmctl show "$name" -p State --value) in stopped | failed) ;; *) fail "$name is $(holmctl show "$name" -p State --value)" ;; esac
    done

    # Side by side: the deaf one takes its four seconds, the others one.
    local one two deaf
    one=$(stopped one) two=$(stopped two) deaf=$(stopped deaf)
    test $((deaf - one)) -gt 2000000 -a $((deaf - one)) -lt 6000000 || fail "deaf ended $(((deaf - one) / 1000)) ms after one"
    test "${two#-}" -gt 0 -a $((two > one ? two - one : one - two)) -lt 1500000 || fail "one and two ended $(((two - one) / 1000)) ms apart"

    grep -q 'stopping all containers' /tmp/before || fail "holmd does not say that it stops all containers: $(cat /tmp/before)"
    if errors=$(journalctl -b -1 --no-pager -o short-monotonic -p warning -u holmd.service) && [ -n "${errors#-- No entries --}" ]; then
        fail "holmd warned: $errors"
    fi
    refute grep -qE 'timed out|Killing process|SIGKILL' /tmp/before
    refute grep -E 'device-mapper: .*(fail|error)|Buffer I/O|EXT4-fs error' <(journalctl -b -1 -k --no-pager)
    assert_eq "" "$(journalctl -b -1 --no-pager -o cat _PID=1 | grep -E 'holm.*(timed out|Failed)' || true)" "what systemd says of Holm"
    assert_eq ok "$(holmctl device status --json | grep -o '"State": *"[a-z-]*"' | cut -d'"' -f4)" "state of the pool"
    holmctl start one
    holmctl exec one true
    holmctl rm --force one two deaf
}
stopped() { holmctl show "$1" -p StoppedUSec --value; }
