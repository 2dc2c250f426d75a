#!/bin/bash
# guest: shared
# A device is active exactly as long as its container runs, whatever happens to holmd.

active() { dmsetup ls | awk '{print $1}' | grep '^holm-' | grep -vc '^holm-pool$' || true; }
now() { active; }; eventually_eq 15 0 now

holmctl run -d --name dev --stop-timeout 1 busybox sleep 1000 >/dev/null
assert_eq 1 "$(active)" "active devices while it runs"
kill -9 "$(pgrep -x holmd)"
assert_eq 1 "$(active)" "active devices after kill -9 of holmd"
eventually 20 busctl status org.holm1
assert_eq running "$(holmctl show dev -p State --value)" "state after kill -9 of holmd"
assert_eq 1 "$(active)" "active devices after holmd came back"
holmctl exec dev touch /written
holmctl stop dev
now() { active; }; eventually_eq 10 0 now

# Stopped while no daemon runs: the kernel deactivates all the same.
holmctl start dev
systemctl kill -s KILL holmd.service; systemctl stop holmd.service
holm_leader=$(cat /sys/fs/cgroup/holm.slice/holm-dev.scope/payload/cgroup.procs | head -n 1)
kill -9 "$holm_leader"
now() { active; }; eventually_eq 10 0 now
systemctl start holmd.service
assert_eq 137 "$(holmctl wait dev || true)" "exit status seen by nobody"

# Copy on write: what one container writes is its own.
assert_eq 1 "$(holmctl run --rm busybox sh -c 'test -e /written; echo $?')" "another container of the image"
holmctl start dev
holmctl exec dev test -e /written || fail "what was written is gone after a restart"
holmctl stop dev
holmctl rm dev
holmctl device list --no-legend | grep -q container && fail "a container's device is left"
true
