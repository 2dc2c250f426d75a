#!/bin/bash
# guest: own
# timeout: 240
# A pool that is full and may not grow: its writers are held still, everything else answers, and they go on when there is
# room. What they were told is on the disk is on the disk.

holmctl run --rm busybox sh -c 'cd / && tar -cf - $(for d in bin sbin usr lib lib64 etc; do [ -e $d ] && echo $d; done)' >/run/busybox.tar
systemctl stop holmd
mkdir -p /etc/holm/holm.toml.d
cat >/etc/holm/holm.toml.d/90-small.toml <<X
[storage]
directory = "/var/lib/holm-small"
prefix = "small"
data-size = "320M"
data-max-size = "320M"
X
systemctl start holmd
holmctl image import --name writer /run/busybox.tar >/dev/null

# Writes files and what must be in them; started again, it looks whether that is so.
# shellcheck disable=SC2016
writer='trap "exit 0" TERM
    [ ! -s /sums ] || { sha256sum -c /sums >/dev/null 2>&1; exit; }
    i=0
    while dd if=/dev/urandom of=/f$i bs=1M count=4 conv=fsync 2>/dev/null; do
        sha256sum /f$i >>/sums.new; cp /sums.new /sums; sync; i=$((i + 1))
    done
    echo writing failed; sleep 1000 & wait'
for n in 1 2 3; do holmctl run -d --name "w$n" --stop-timeout 20 writer sh -c "$writer" >/dev/null; done
state() { holmctl show "$1" -p State --value; }
all_held() { [ "$(state w1) $(state w2) $(state w3)" = "frozen frozen frozen" ]; }
# While there is some room they are stopped only for a while, when they are too fast; at the end for good.
settled() { all_held && sleep 4 && all_held; }
eventually 120 settled
assert_match "$(holmctl show w1 -p StatusText --value)" "the pool has no room"
note "$(holmctl device status | xargs)"

# Nothing waits for the pool.
quick() {
    local before=$EPOCHREALTIME
    timeout 20 "$@" >/run/quick.out 2>&1 || { cat /run/quick.out; fail "failed: $*"; }
    note "$* took $(awk -v a="$before" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.0f ms", (b - a) * 1000 }')"
}
quick holmctl list
quick holmctl device list
quick holmctl status w1

# A restart of the daemon changes nothing of it.
systemctl restart holmd
all_held || fail "not held any more after a restart: $(state w1) $(state w2) $(state w3)"

# One is removed: the others go on, until the pool is full again.
sums() { holmctl exec "$1" sh -c 'wc -l </sums'; }
quick holmctl rm --force w1
goes_on() { [ "$(state "$1")" = running ]; }
either_goes_on() { goes_on w2 || goes_on w3; }
eventually 20 either_goes_on
both_held() { [ "$(state w2) $(state w3)" = "frozen frozen" ]; }
both_settled() { both_held && sleep 4 && both_held; }
eventually 120 both_settled

# Stopped although they are held; all that was told to be on the disk is there.
quick holmctl stop w2
quick holmctl stop w3
for n in w2 w3; do
    holmctl logs "$n" | grep "writing failed" && fail "$n got an error"
    holmctl start "$n"
    assert_eq 0 "$(holmctl wait "$n" || true)" "what $n wrote is there"
done
dmesg | grep -E 'I/O error|lost async page write|blocked for more than|Remounting filesystem read-only' && fail "the kernel met an error"

# By hand: more room, and who was held goes on; a freeze that somebody asked for stays.
holmctl rm w2 w3
holmctl run -d --name w4 --stop-timeout 20 writer sh -c "$writer" >/dev/null
held() { [ "$(state w4)" = frozen ] && sleep 4 && [ "$(state w4)" = frozen ]; }
eventually 120 held
busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet Grow tt $((640 << 20)) 0 >/dev/null
eventually 20 goes_on w4
holmctl rm --force w4
