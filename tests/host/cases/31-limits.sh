#!/bin/bash
# guest: shared
# Shares and limits beyond memory, CPU time and tasks: in the kernel's files where there is a controller, and said where there is none.

group_of() { echo "/sys/fs/cgroup$(systemctl show -p ControlGroup --value "holm-$1.scope")"; }
controllers=" $(cat /sys/fs/cgroup/cgroup.controllers) "
has() { case $controllers in *" $1 "*) return 0;; esac; return 1; }

holmctl run -d --name limited --stop-timeout 1 --cpu-weight 50 --allowed-cpus 0 --memory-high 50M --memory-swap-max 0 --io-weight 7 \
    --io-read-bandwidth-max 5M --io-write-bandwidth-max 1M --io-read-iops-max 1K --io-write-iops-max '/dev/ubda 500' \
    busybox sleep 1000 >/tmp/name 2>/tmp/said
group=$(group_of limited)
warnings=$(holmctl show limited -p Warnings --value)
note "controllers:$controllers"
note "warnings: $warnings"

# A limit is in the kernel, or is said to be in vain; never neither.
in_kernel() {  # PROPERTY CONTROLLER FILE VALUE
    if [ -e "$group/$3" ]; then
        assert_eq "$4" "$(cat "$group/$3")" "$3"
        case $warnings in *"$1 "*) fail "$1 is said to have no effect";; esac
        return
    fi
    assert_has "$warnings" "$1 has no effect" "Warnings"
    assert_has "$(cat /tmp/said)" "holmctl: warning: limited: $1 has no effect" "what run says"
    assert_has "$(holmctl status limited)" "$1 has no effect" "status"
    assert_has "$(journalctl -b -u holmd -o cat)" "$1 has no effect" "the log"
    has "$2" || assert_has "$warnings" "$1 has no effect: this host has no controller '$2'" "Warnings"
}
in_kernel CPUWeight cpu cpu.weight 50
in_kernel AllowedCPUs cpuset cpuset.cpus 0
in_kernel MemoryHigh memory memory.high 52428800
in_kernel MemorySwapMax memory memory.swap.max 0
if [ -e "$group/io.bfq.weight" ]; then io_weight=io.bfq.weight; else io_weight=io.weight; fi
in_kernel IOWeight io "$io_weight" "default 7"
has cpuset || assert_has "$(holmctl doctor || true)" "without cpuset (AllowedCPUs)" "doctor"
[ -e "$group/$io_weight" ] || assert_has "$(holmctl doctor || true)" "IOWeight" "doctor"

if has io; then
    # The root's device is the one that the pool's data is on; systemd names it in its own property.
    data=$(losetup -nO NAME,BACK-FILE | awk '$2 ~ "/pool/data$" { print $1 }')
    number=$(lsblk -ndo MAJ:MIN "$data" | tr -d ' ')
    assert_eq "$data 1000000" "$(systemctl show -p IOWriteBandwidthMax --value holm-limited.scope)" "systemd's property"
    assert_eq "$number rbps=5000000 wbps=1000000 riops=1000 wiops=max" "$(grep "^$number " "$group/io.max")" "io.max of the root's device"
    grep -q '^98:0 .*wiops=500$' "$group/io.max" || fail "another device: $(cat "$group/io.max")"
    # 2 MiB at 1 MB/s take two seconds, however fast the disk is.
    start=$EPOCHREALTIME
    holmctl exec limited dd if=/dev/zero of=/big bs=64k count=32 conv=fsync 2>/dev/null
    took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    note "2 MiB at 1 MB/s: $took s"
    awk -v took="$took" 'BEGIN { exit !(took >= 1) }' || fail "2 MiB at 1 MB/s took $took s"
fi

# Changed while it runs, for good, and taken away.
holmctl update --cpu-weight idle --memory-high 60M --io-write-bandwidth-max none --io-read-bandwidth-max 6M --cpuset-cpus none --io-weight none limited
assert_eq 1 "$(cat "$group/cpu.idle")" "cpu.idle"
assert_eq $((60 << 20)) "$(cat "$group/memory.high")" "memory.high"
assert_eq "" "$(holmctl show limited -p Warnings --value)" "Warnings of limits that were taken away"
assert_eq "" "$(systemctl show -p IOWriteBandwidthMax --value holm-limited.scope)" "a limit that was taken away"
if has io; then grep -q "^$number rbps=6000000 wbps=max riops=1000 " "$group/io.max" || fail "io.max: $(cat "$group/io.max")"; fi
holmctl restart limited
group=$(group_of limited)
assert_eq 1 "$(cat "$group/cpu.idle")" "cpu.idle after a restart"
assert_eq 0 "$(cat "$group/memory.swap.max")" "memory.swap.max after a restart"
if has io; then assert_eq "$number rbps=6000000 wbps=max riops=1000 wiops=max" "$(grep "^$number " "$group/io.max")" "io.max after a restart"; fi
systemctl restart holmd
holmctl update --cpu-weight none --memory-high none --memory-swap-max none --io-read-bandwidth-max none --io-read-iops-max none --io-write-iops-max none limited
assert_eq 100,max,max "$(cat "$group/cpu.weight"),$(cat "$group/memory.high"),$(cat "$group/memory.swap.max")" "what was taken away"
assert_eq "" "$(cat "$group/io.max" 2>/dev/null)" "io.max with nothing left"

# What is refused says what is possible.
refused() { refute holmctl "${@:2}" 2>/tmp/err; assert_has "$(cat /tmp/err)" "$1" "${*:2}"; }
refused "from 1 to 10000, or idle" update --cpu-weight 10001 limited
refused "such as 0-3,5" update --cpuset-cpus 3-1 limited
refused "'/dev/sda 5M'" update --io-read-bandwidth-max /dev/sda:5M limited
refused "below 1M" update --memory-high 1K limited
assert_has "$(busctl call org.holm1 /org/holm1/container/limited org.holm1.Container SetResources 'a{sv}' 1 IOWeight t 0 2>&1 || true)" \
    "IOWeight': a weight is a number from 1 to 10000" "over the bus"
holmctl rm -f limited
