#!/bin/bash
# guest: shared
# Create, start, exec, freeze, stop, restart, rename, logs, attach, limits: the verbs of a container's life.
state() { holmctl show life -p State --value; }

holmctl create --name life --stop-timeout 2 busybox sh -c 'echo "hello from $$"; trap "echo asked; exit 3" TERM; while :; do sleep 0.1; done' >/dev/null
assert_eq created "$(state)" "state after create"
holmctl start life
assert_eq running "$(state)" "state after start"
eventually 10 sh -c 'holmctl logs life | grep -q "hello from 1"'
journalctl -u holm-life.scope --no-pager | grep -q 'hello from 1' || fail "the journal does not have the output under the scope"

assert_eq 5 "$(holmctl exec life sh -c 'exit 5' || echo $?)" "exit status of exec"
assert_eq inside "$(holmctl exec life echo inside)" "output of exec"
assert_eq hi "$(echo hi | holmctl exec -i life cat)" "input of exec"
assert_eq 127 "$(holmctl exec life no-such-command 2>/dev/null || echo $?)" "exec of a command that is not there"
assert_eq 1000 "$(holmctl exec -u 1000 life id -u)" "user of exec"

holmctl freeze life
assert_eq frozen "$(state)" "state after freeze"
if timeout 5 holmctl exec life true 2>/tmp/err; then fail "a frozen container can be entered"; fi
grep -q thaw /tmp/err || fail "exec in a frozen container should say what to do: $(cat /tmp/err)"
holmctl thaw life
assert_eq running "$(state)" "state after thaw"

holmctl stop life
assert_eq stopped "$(state)" "state after stop"
assert_eq 3 "$(holmctl wait life || true)" "exit status after stop"
holmctl logs life | grep -q asked || fail "the stop signal did not arrive"

holmctl start life
if holmctl start life 2>/tmp/err; then fail "started twice"; fi
holmctl restart life
assert_eq running "$(state)" "state after restart"
if holmctl rm life 2>/dev/null; then fail "removed while it runs"; fi
holmctl stop life
holmctl rename life renamed
assert_eq stopped "$(holmctl show renamed -p State --value)" "state under the new name"
if holmctl show life >/dev/null 2>&1; then fail "the old name is still there"; fi
holmctl start renamed && holmctl kill -s KILL renamed
now() { holmctl show renamed -p State --value; }; eventually_eq 5 failed now
assert_eq signal "$(holmctl show renamed -p Result --value)" "Result after kill"
holmctl rm renamed

# One that ignores its signal is killed after its timeout, and says so.
holmctl run -d --name deaf --stop-timeout 1 busybox sh -c 'trap "" TERM; while :; do sleep 1; done' >/dev/null
start=$(date +%s%N)
holmctl stop deaf
took=$((($(date +%s%N) - start) / 1000000))
test "$took" -ge 900 -a "$took" -lt 6000 || fail "stop of a deaf container took $took ms"
assert_eq timeout "$(holmctl show deaf -p Result --value)" "Result"
holmctl rm deaf

# systemctl stop of the scope reaches the payload's own stop signal.
holmctl run -d --name viaunit busybox sh -c 'trap "exit 9" TERM; while :; do sleep 0.1; done' >/dev/null
systemctl stop holm-viaunit.scope
now() { holmctl show viaunit -p ExitStatus --value; }; eventually_eq 10 9 now
holmctl rm viaunit

# A terminal.
out=$(holmctl run --rm -t busybox sh -c 'test -t 0 && test -t 1 && tty && stty size' </dev/null)
case $out in */dev/*) ;; *) fail "no terminal: $out";; esac
holmctl exec -t life true 2>/dev/null && fail "exec in a container that is gone"
true
