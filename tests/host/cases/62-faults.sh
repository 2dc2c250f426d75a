#!/bin/bash
# guest: own
# timeout: 200
# What goes wrong below and beside the daemon: its files lost, of an earlier time or of another pool, a second daemon, a device held by somebody, a daemon
# killed while a device is suspended, a disk that fails. Each time: a clear word or full service, nothing lost that was acknowledged, and listings that answer.

state=/var/lib/holm
pool=$state/pool
# Changed by nobody until it is asked to end.
# shellcheck disable=SC2016
rest='trap "exit 0" TERM; while :; do sleep 1000 & wait; done'

# answers : what people look at first comes at once. How long it took is noted; five seconds are a hang.
answers() {
    local before what
    for what in "list --all" "device list" "device status"; do
        before=$EPOCHREALTIME
        # shellcheck disable=SC2086
        timeout 5 holmctl $what >/run/answer 2>&1 || { cat /run/answer; fail "no answer: holmctl $what"; }
        note "holmctl $what: $(awk -v a="$before" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.0f ms", (b - a) * 1000 }')"
    done
}
# refused TEXT COMMAND… : ends with 125 within five seconds, and says so in one line.
refused() {
    local text=$1
    shift
    assert_status 125 timeout 5 "$@" >/run/refused 2>&1
    assert_eq 1 "$(wc -l </run/refused)" "lines of the error of $*: $(cat /run/refused)"
    assert_has "$(cat /run/refused)" "$text" "the error of $*"
}
# of_pool NAME : a word of `device status`.
of_pool() { holmctl device status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
thin_ids() { dmsetup status holm-pool >/dev/null; thin_dump $pool/metadata | sed -n 's/.*<device dev_id="\([0-9]*\)".*/\1/p' | xargs; }
node_of() { dmsetup ls | sed -n 's/^\(holm-[0-9a-f]*-[0-9]*\)\t.*/\1/p'; }
# rest NAME : one that runs, with a file that is on the disk.
rests() {
    holmctl run -d --name "$1" --stop-timeout 2 busybox sh -c "$rest" >/dev/null
    holmctl exec "$1" sh -c 'echo kept >/kept; sync'
}
has_kept() { holmctl start "$1" && assert_eq kept "$(holmctl exec "$1" cat /kept)" "what $1 had" && holmctl stop "$1"; }
# all_off : no daemon, no device, no pool.
all_off() {
    systemctl stop holmd
    systemctl reset-failed holmd 2>/dev/null || true
    local node
    for node in $(node_of); do dmsetup remove --retry "$node"; done
    ! dmsetup info holm-pool >/dev/null 2>&1 || dmsetup remove --retry holm-pool
    files_free() { ! losetup -l -n -O BACK-FILE | grep -q "^$state"; }; eventually 10 files_free
}

note "two daemons"
rests a
assert_status 1 timeout 10 holmd 2>/run/second >/dev/null
assert_has "$(cat /run/second)" "in use by another process: only one holmd can use a directory"
mkdir -p /run/other
printf '[storage]\ndirectory = "/var/lib/holm-other"\n' >/run/other/holm.toml
assert_status 1 timeout 20 holmd --config-root /run/other 2>/run/second >/dev/null
assert_has "$(cat /run/second)" "configure another prefix"
rm -rf /var/lib/holm-other
assert_eq kept "$(holmctl exec a cat /kept)" "what the first goes on with"
answers

note "a device that somebody holds open when its container is removed"
node=$(node_of)
exec 7<"/dev/dm-$(dmsetup info -c --noheadings -o minor "$node")"
before=$(thin_ids)
timeout 10 holmctl rm --force a
assert_eq "" "$(holmctl list --all --no-legend)" "containers"
answers
assert_eq "$before" "$(thin_ids)" "what is held is not deleted"
exec 7<&-
now() { thin_ids | wc -w; }; eventually_eq 10 $(($(wc -w <<<"$before") - 1)) now

note "killed while a device is suspended for a snapshot"
rests a
dmsetup suspend "$(node_of)"
kill -9 "$(pgrep -x holmd)"
timeout 30 holmctl exec a sh -c 'echo later >/later; sync' || fail "what was suspended stays so"
assert_eq ACTIVE "$(dmsetup info "$(node_of)" | awk '/^State/ { print $2 }')" "state of the device"
holmctl snapshot a here >/dev/null 2>&1
answers
holmctl rm --force a

note "the journal is lost"
rests a
holmctl stop a
all_off
rm $pool/journal
systemctl start holmd
# It looks after containers, and says what to do where a device is needed.
assert_eq a "$(holmctl list --all --no-legend | awk '{ print $1 }')" "containers without a journal"
assert_eq needs-check "$(of_pool State)" "state without a journal"
refused "it holds a pool but there is no journal beside it; rebuild that with 'holmctl device salvage'" holmctl start a
refused "no journal beside it" holmctl device list
refused "no journal beside it" holmctl rm a
systemctl stop holmd
timeout 60 holmctl device salvage
systemctl start holmd
assert_eq a "$(holmctl list --all --no-legend | awk '{ print $1 }')" "containers after salvage"
assert_eq "busybox debian" "$(holmctl image list --no-legend | awk '{ print $1 }' | sort | xargs)" "images after salvage"
has_kept a

note "the journal is of an earlier time"
cp $pool/journal /run/journal
holmctl create --name later busybox true >/dev/null
holmctl snapshot a then >/dev/null 2>&1
all_off
cp $pool/journal /run/journal.newest
cp /run/journal $pool/journal
systemctl start holmd
answers
assert_eq read-only "$(of_pool State)" "state"
# What the older journal does not know of stays on record.
assert_eq "a later" "$(holmctl list --all --no-legend | awk '{ print $1 }' | sort | xargs)" "containers"
refused "the journal was restored from an earlier time" holmctl create --name c busybox true
refused "the journal was restored from an earlier time" holmctl rm a
has_kept a
all_off
cp /run/journal.newest $pool/journal
systemctl start holmd
assert_eq ok "$(of_pool State)" "state with the newest journal"
assert_eq 0 "$(holmctl start later; holmctl wait later)" "the later one"
assert_eq then "$(holmctl snapshot --list --no-legend a | awk '{ print $1 }')" "the later snapshot"

note "files of another pool"
all_off
mv $state $state.mine
systemctl start holmd
holmctl image import /host/images/busybox.tar --name busybox >/dev/null
rests other
holmctl stop other
all_off
mv $state $state.other
mv $state.mine $state
cp $pool/metadata /run/metadata
ids() { thin_dump "$1" | grep '<device'; }
theirs=$(ids $state.other/pool/metadata)
for files in metadata "metadata data"; do
    for file in $files; do
        [ $file = metadata ] || mv $pool/data $pool/data.mine
        cp --sparse=always "$state.other/pool/$file" "$pool/$file"
    done
    systemctl start holmd
    answers
    assert_eq read-only "$(of_pool State)" "state with another pool's $files"
    refused "of another pool" holmctl create --name c busybox true
    refused "of another pool" holmctl rm a
    assert_eq "a later" "$(holmctl list --all --no-legend | awk '{ print $1 }' | sort | xargs)" "containers"
    all_off
    assert_eq "$theirs" "$(ids $pool/metadata)" "devices of the other pool"
done
# Numbers that fit, on another pool's data: its label tells.
cp /run/metadata $pool/metadata
systemctl start holmd
answers
refused "another pool" holmctl create --name c busybox true
all_off
mv $pool/data.mine $pool/data
systemctl start holmd
assert_eq ok "$(of_pool State)" "state with the right files"
has_kept a
holmctl rm a later
rm -rf $state.other

note "a disk that fails below the metadata, then below the data"
all_off
truncate -s 2500M /var/below.img
below=$(losetup -f --show /var/below.img)
sectors=$(blockdev --getsz "$below")
dmsetup create below --table "0 $sectors linear $below 0"
mkfs.ext4 -q -E nodiscard /dev/mapper/below
mkdir /srv/below
mount /dev/mapper/below /srv/below
mkdir /srv/below/pool
mv $state $state.mine
mkdir -m 700 $state $pool
mount --bind /srv/below/pool $pool
systemctl start holmd
holmctl image import /host/images/busybox.tar --name busybox >/dev/null
# failing FILE : the table in which what lies below that file gives errors.
failing() {
    filefrag -b4096 -v "$1" | sed -n 's/^ *[0-9]*: *[0-9]*\.\. *[0-9]*: *\([0-9]*\)\.\. *[0-9]*: *\([0-9]*\):.*/\1 \2/p' | sort -n |
        awk -v all="$sectors" -v below="$below" '
            BEGIN { at = 0 }
            function good(to) { if (to > at) print at, to - at, "linear", below, at }
            { start = $1 * 8; length_ = $2 * 8; good(start); print start, length_, "error"; at = start + length_ }
            END { good(all) }'
}
# switch TABLE : under everything that is going on.
switch() { dmsetup suspend --noflush --nolockfs below; dmsetup load below <<<"$1"; dmsetup resume below; }
good="0 $sectors linear $below 0"
for what in metadata data; do
    rests kept
    holmctl stop kept
    holmctl run -d --name writer --stop-timeout 2 busybox sh -c 'i=0; while :; do i=$((i + 1)); dd if=/dev/zero of=/f$((i % 50)) bs=64k count=8 conv=fsync; done' >/dev/null 2>&1
    wrote() { holmctl exec writer test -e /f9; }; eventually 20 wrote
    sync
    table=$(failing $pool/$what)
    assert_has "$table" error "what fails below the $what"
    switch "$table"
    met() { dmesg | grep -qE 'device-mapper: thin: .*(failed|abort)|I/O error, dev (loop|dm)|Buffer I/O error|EXT4-fs error'; }; eventually 40 met
    answers
    if [ $what = metadata ]; then
        now() { of_pool State; }; eventually_eq 20 needs-check now
        refused "restart holmd when no container runs" holmctl create --name c busybox true
    fi
    timeout 20 holmctl rm --force writer
    answers
    switch "$good"
    eventually_eq 10 "" node_of
    systemctl restart holmd
    assert_eq ok "$(of_pool State)" "state when the disk is well again"
    has_kept kept
    holmctl rm kept
    holmctl run --rm busybox true
    dmesg -C
done
all_off
umount $pool
rm -rf $state
mv $state.mine $state
umount /srv/below
dmsetup remove --retry below
losetup -d "$below"
systemctl start holmd
