#!/bin/bash
# guest: own
# timeout: 150
# A storm of requests while holmd is killed again and again: every container ends in a sane state, and removed, leaves nothing behind.

holmd() { systemctl show --value -p MainPID holmd.service; }
open_files() { find "/proc/$(holmd)/fd" -mindepth 1 | wc -l; }
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$(holmd)/status"; }
# left : whatever of containers there is; nothing, if all is well.
left() {
    systemctl list-units --all --no-legend --plain 'holm-*.scope'
    dmsetup ls | grep '^holm-' | grep -v -- '-pool'
    holmctl device list --no-legend | grep container
    ls /var/lib/holm/containers /run/holm/run | grep -v -e ':$' -e '^$'
    find /sys/fs/cgroup/holm.slice -mindepth 1 -type d 2>/dev/null
    machinectl list --no-legend | grep -v '^\.host'
    ps --no-headers -o pid,stat,args --ppid "$(holmd)"
    true
}
loops=$(losetup -l -n | wc -l)
log=$(dmesg | wc -l)

verb() {
    local name=h$((RANDOM % 8)) other=h$((RANDOM % 8))
    case $((RANDOM % 14)) in
        0 | 1) holmctl create --name "$name" --stop-timeout 1 busybox sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done' ;;
        2 | 3 | 4) holmctl start "$name" ;;
        5) holmctl stop "$name" ;;
        6) holmctl restart "$name" ;;
        7) holmctl kill -s KILL "$name" ;;
        8) holmctl freeze "$name" ;;
        9) holmctl thaw "$name" ;;
        10) holmctl exec "$name" true ;;
        11) holmctl rename "$name" "$other" ;;
        12) holmctl rm "$name" ;;
        13) holmctl rm --force "$name" ;;
    esac
}
storm() { while [ "$SECONDS" -lt "$1" ]; do if (verb) >/dev/null 2>&1 </dev/null; then echo done; else echo refused; fi; done >"/tmp/storm-$2"; }
until=$((SECONDS + 15))
clients=()
for i in 1 2 3 4 5 6; do storm "$until" "$i" & clients+=($!); done
while [ "$SECONDS" -lt "$until" ]; do
    sleep 3
    systemctl reset-failed holmd.service
    systemctl kill -s KILL holmd.service
done
# A client may hang on a request that a killed holmd had taken: that is a failure too.
calm() { ! kill -0 "${clients[@]}" 2>/dev/null; }; eventually 30 calm
note "$(cat /tmp/storm-* | sort | uniq -c | tr '\n' ' ')"
test "$(cat /tmp/storm-* | grep -c done)" -ge 20 || fail "that was no storm"
eventually 20 busctl status org.holm1
note "$(holmctl list --all)"
sane() { ! holmctl list --all --no-legend | grep -e starting -e stopping; }; eventually 20 sane
for name in $(holmctl list --all --no-legend | awk '{ print $1 }'); do timeout 20 holmctl rm --force "$name"; done
clean() { for try in $(seq 100); do [ -z "$(left 2>/dev/null)" ] && return 0; sleep 0.2; done; left; systemctl status --no-pager -l 'holm-*.scope'; for p in $(cat /sys/fs/cgroup/holm.slice/*/cgroup.procs /sys/fs/cgroup/holm.slice/*/*/cgroup.procs); do echo "$p $(cat /proc/$p/wchan) $(tr '\0' ' ' </proc/$p/cmdline)"; cat /proc/$p/stack; done; journalctl -b --no-pager -o short-monotonic | tail -n 700; return 1; }
clean
assert_eq "$loops" "$(losetup -l -n | wc -l)" "loop devices"
assert_eq "" "$(dmesg | tail -n "+$((log + 1))" | grep -i -e 'blocked for more' -e 'WARNING:' -e 'BUG:' -e 'error')" "the kernel's log"

# Runs cost holmd nothing that stays.
for _ in 1 2 3; do holmctl run --rm busybox true </dev/null; done
eventually_eq 10 "" left
files=$(open_files) memory=$(rss)
for _ in $(seq 50); do holmctl run --rm busybox true </dev/null; done
eventually_eq 10 "" left
now() { open_files; }; eventually_eq 10 "$files" now
grown=$(($(rss) - memory))
note "holmd grew by $grown KiB in 50 runs"
test "$grown" -lt 4096 || fail "holmd grew by $grown KiB in 50 runs"
