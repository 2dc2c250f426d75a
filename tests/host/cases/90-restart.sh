#!/bin/bash
# guest: shared
# A restart of holmd touches no container.

holmctl run -d --name stays --stop-timeout 1 busybox sh -c 'i=0; while :; do echo $((i=i+1)) >/count; sleep 0.1; done' >/dev/null
leader=$(holmctl show stays -p Leader --value)
start=$(date +%s%N)
systemctl restart holmd.service
took=$((($(date +%s%N) - start) / 1000000))
test "$took" -lt 8000 || fail "the restart took $took ms"
assert_eq "$leader" "$(holmctl show stays -p Leader --value)" "the leader after a restart"
assert_eq running "$(holmctl show stays -p State --value)" "the state after a restart"
first=$(holmctl exec stays cat /count)
moved() { [ "$(holmctl exec stays cat /count)" != "$first" ]; }; eventually 5 moved
systemctl daemon-reexec
assert_eq running "$(holmctl show stays -p State --value)" "the state after daemon-reexec"
systemctl restart systemd-machined
eventually 10 sh -c 'machinectl list --no-legend | grep -q "^stays "'

# A scope around a process that had just ended, as a daemon leaves that is killed at the wrong moment: systemd never sees it end.
python3 -c '
import os, subprocess
child = os.fork()
if child == 0: os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
subprocess.run(["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartTransientUnit",
    "ssa(sv)a(sa(sv))", "holm-ghost.scope", "fail", "2", "Slice", "s", "holm.slice", "PIDs", "au", "1", str(child), "0"], check=True, stdout=subprocess.DEVNULL)'
ghost() { systemctl is-active --quiet holm-ghost.scope; }
eventually 5 ghost
systemctl restart holmd.service
no_ghost() { ! ghost; }; eventually 5 no_ghost
assert_eq running "$(holmctl show stays -p State --value)" "the state after empty scopes were cleared away"

# The call that activates the daemon is answered, every time.
for _ in $(seq 20); do
    systemctl stop holmd.service
    systemctl reset-failed holmd.service 2>/dev/null || true
    timeout 20 holmctl show stays -p State >/dev/null || fail "no answer from a daemon that was activated for the call"
done

systemctl restart systemd-journald
holmctl exec stays true
holmctl stop stays
holmctl rm stays
systemctl is-system-running | grep -q running || fail "$(systemctl --failed)"
