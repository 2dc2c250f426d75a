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
systemctl restart systemd-journald
holmctl exec stays true
holmctl stop stays
holmctl rm stays
systemctl is-system-running | grep -q running || fail "$(systemctl --failed)"
