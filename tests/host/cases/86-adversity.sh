#!/bin/bash
# guest: shared
# timeout: 120
# Monitors, clients and scopes that go at the worst moment.

show() { holmctl show "$1" -p "$2" --value; }
state_is() { [ "$(show "$1" State)" = "$2" ]; }
scope_gone() { ! systemctl is-active --quiet "holm-$1.scope"; }
group() { printf '/sys/fs/cgroup%s' "$(show "$1" ControlGroup)"; }
monitor() { head -n 1 "$(group "$1")/supervisor/cgroup.procs"; }
polite='trap "exit 3" TERM; while :; do sleep 0.1; done'
run() { holmctl run -d --name "$1" --stop-timeout 2 busybox sh -c "$2" >/dev/null; }

note "monitor killed, payload ends when it is stopped"
run orphan "$polite"
leader=$(show orphan Leader)
kill -KILL "$(monitor orphan)"
eventually 5 sh -c 'journalctl -b -u holmd.service -o cat | grep -q "monitor of container orphan was killed"'
assert_eq running "$(show orphan State)" "state without a monitor"
assert_eq inside "$(holmctl exec orphan echo inside)" "exec without a monitor"
holmctl stop orphan
# The kernel tells (Linux 6.15).
assert_eq "exit-code 3 stopped" "$(show orphan Result) $(show orphan ExitStatus) $(show orphan State)" "how it ended without a monitor"
refute test -e "/proc/$leader"
eventually 5 scope_gone orphan
holmctl start orphan
assert_eq running "$(show orphan State)" "state after a lost run"

note "monitor killed, holmd killed, payload ends by itself"
kill -KILL "$(monitor orphan)"
leader=$(show orphan Leader)
systemctl reset-failed holmd.service
systemctl kill -s KILL holmd.service
eventually 20 busctl status org.holm1
assert_eq running "$(show orphan State)" "state without a monitor, after a crash"
kill -KILL "$leader"
eventually 5 state_is orphan failed
assert_eq "signal 137" "$(show orphan Result) $(show orphan ExitStatus)" "how it ended"

note "monitor and payload end while no daemon runs"
holmctl start orphan
leader=$(show orphan Leader)
# A moment after the start systemd has the leader's descriptor.
stored() { systemctl show holmd.service -p NFileDescriptorStore --value | grep -qv '^0$'; }
eventually 5 stored
mkdir -p /run/systemd/system/holmd.service.d
printf '[Service]\nRestartSec=3s\n' >/run/systemd/system/holmd.service.d/slow.conf
systemctl daemon-reload
systemctl reset-failed holmd.service
monitor=$(monitor orphan)
systemctl kill -s KILL holmd.service
kill -KILL "$monitor"
kill -TERM "$leader"
eventually 2 sh -c "! test -e /proc/$leader"
rm -r /run/systemd/system/holmd.service.d
systemctl daemon-reload
eventually 20 busctl status org.holm1
assert_eq "exit-code 3" "$(show orphan Result) $(show orphan ExitStatus)" "how it ended with nobody there"
holmctl rm orphan

note "systemctl stop"
run unit "$polite"
systemctl stop holm-unit.scope
eventually 5 state_is unit stopped
assert_eq 3 "$(show unit ExitStatus)" "exit status after systemctl stop"
holmctl start unit
# It complains when a group that it is about to signal has gone, as it should.
systemctl kill --signal=KILL holm-unit.scope || true
eventually 5 state_is unit failed
eventually 5 scope_gone unit
holmctl start unit
# One that its first process does not heed, and that a monitor must not die of.
systemctl kill --signal=HUP holm-unit.scope
always 0.5 state_is unit running
holmctl stop unit
assert_eq 3 "$(show unit ExitStatus)" "exit status after a signal to all"
holmctl rm unit
holmctl run -d --name deaf --stop-timeout 1 busybox sh -c 'trap "" TERM; while :; do sleep 0.1; done' >/dev/null
systemctl stop holm-deaf.scope
eventually 5 state_is deaf failed
holmctl start deaf
assert_eq running "$(show deaf State)" "state after systemd has killed it"

note "systemctl freeze"
systemctl freeze holm-deaf.scope
timeout 10 holmctl stop deaf
assert_eq timeout "$(show deaf Result)" "result of a stop through systemd's freeze"
holmctl start deaf
systemctl freeze holm-deaf.scope
timeout 10 holmctl rm --force deaf

note "restarts at once"
run quick "$polite"
for _ in 1 2 3 4 5; do holmctl restart quick; done
assert_eq running "$(show quick State)" "state after restarts"

note "twenty at once"
for i in $(seq 20); do holmctl exec quick sh -c "echo $i" >"/tmp/exec-$i" </dev/null & done
wait
for i in $(seq 20); do assert_eq "$i" "$(cat "/tmp/exec-$i")" "output of exec $i"; done

note "an exec's client is killed"
holmctl exec quick sh -c 'sleep 4711 & sleep 4712' </dev/null >/dev/null 2>&1 &
client=$!
sleepers() { cat "$(group quick)"/*/cgroup.procs | xargs -I{} cat /proc/{}/cmdline 2>/dev/null | tr '\0' ' ' | grep -c 'sleep 47' || true; }
busy() { [ "$(sleepers)" != 0 ]; }; eventually 5 busy
kill -KILL "$client"
eventually_eq 5 0 sleepers

note "exec while stopping"
for _ in 1 2 3; do
    for _ in 1 2 3 4 5; do (timeout 10 holmctl exec quick true </dev/null >/dev/null 2>&1 || [ $? -ne 124 ]) & done
    holmctl restart quick
    wait
done
assert_eq running "$(show quick State)" "state after restarts with execs"
assert_eq 1024 "$(holmctl exec quick sh -c 'ulimit -Sn')" "soft limit of open files"
holmctl rm --force quick

note "the client of run is killed"
holmctl run --rm --name alone busybox sh -c 'sleep 1000' </dev/null >/dev/null 2>&1 &
client=$!
eventually 10 state_is alone running
kill -KILL "$client"
always 1 holmctl show alone
holmctl rm --force alone

gone() { systemctl list-units --all --no-legend --plain 'holm-*.scope'; holmctl list --all --no-legend; }
eventually_eq 10 "" gone
