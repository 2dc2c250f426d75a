# The test host itself: systemd is up with nothing failed, and those that Holm talks to answer on the bus.
assert_eq "$(systemctl is-system-running --wait)" running "state of the system"
assert_eq "$(systemctl --failed --no-legend --plain)" "" "failed units"
assert_eq "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs "cgroups"
assert_eq "$(cat /proc/1/comm)" systemd "process 1"
assert_eq "$(hostname)" holm-test "name of the host"
busctl --quiet call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager ListMachines >/dev/null
busctl --quiet call org.freedesktop.PolicyKit1 /org/freedesktop/PolicyKit1/Authority org.freedesktop.PolicyKit1.Authority EnumerateActions s '' >/dev/null
udevadm settle --timeout=10
assert_has "$(udevadm info /dev/ubda)" DEVNAME=/dev/ubda "udev's data on the disk"
assert_eq "$(systemd-run --quiet --scope -p Delegate=yes -p MemoryMax=64M sh -c 'cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max')" 67108864 "memory.max in a scope"
findmnt -no OPTIONS / | grep -q rw || fail "the root is not writable"
findmnt -no FSTYPE / | grep -qx ext4
[ -e "/proc/fs/jbd2/ubda-8" ] || dumpe2fs -h /dev/ubda 2>/dev/null | grep -q has_journal || fail "the root has no journal"
