#!/bin/bash
# guest: own
# timeout: 150
# holmctl device: growth, check, repair, trim, salvage, and what the journal says of the pool.

json() { "$@" --json >/tmp/json || fail "status $?: $*"; python3 -m json.tool /tmp/json >/dev/null || fail "no JSON from $*: $(cat /tmp/json)"; }
refused() { # refused STATUS TEXT COMMAND…
    local status=$1 text=$2; shift 2
    assert_status "$status" "$@" >/tmp/out 2>/tmp/err </dev/null
    assert_eq 1 "$(wc -l </tmp/err)" "lines of the error of $*: $(cat /tmp/err)"
    assert_has "$(cat /tmp/err)" "$text" "the error of $*"
}
number() { busctl get-property org.holm1 /org/holm1/deviceset org.holm1.DeviceSet "$1" | cut -d ' ' -f 2; }
journalctl --update-catalog
told() { journalctl -b -x -u holmd --no-pager | grep -q "$1"; }

holmctl run -d --name web --size 11G busybox sh -c 'dd if=/dev/urandom of=/big bs=1M count=30 2>/dev/null; sync; rm /big; sync; exec sleep 1000' >/dev/null
holmctl device add mine --size 11G
json holmctl device list
json holmctl device list --exclusive
python3 - <<'P' || fail "device list --json: $(cat /tmp/json)"
import json
devices = {device["id"]: device for device in json.load(open("/tmp/json"))}
assert not devices["mine"]["own"] and devices["mine"]["of"] == [] and devices["base"]["own"]
[web] = [device for device in devices.values() if device["of"] == ["container web"]]
assert web["active"] and web["size"] == 11 << 30 and 0 < web["exclusive"] <= web["mapped"]
P
holmctl device list --exclusive | grep -q EXCLUSIVE || fail "no column"
assert_eq "$(holmctl device list --no-legend | wc -l)" "$(number Devices)" "devices listed"

# Growth: of a container by its name, of a device by its id, of the pool by hand.
holmctl device grow web 12G
assert_eq $((12 << 30)) "$(holmctl show web -p Size --value)" "Size of the container"
holmctl device grow mine 12G
refused 125 "smaller" holmctl device grow mine 1G
refused 125 "no device" holmctl device grow nobody 20G
refused 125 "see 'holmctl device grow --help'" holmctl device grow web
refused 125 "see 'holmctl device grow --help'" holmctl device grow
data=$(number DataTotal)
holmctl device grow --data $((data + (64 << 20))) 2>/tmp/err
assert_eq $((data + (64 << 20))) "$(number DataTotal)" "DataTotal as the job ends"
assert_has "$(cat /tmp/err)" "growing the pool" "progress"
assert_status 125 holmctl device grow --data 64M 2>/tmp/err
assert_has "$(tail -n 1 /tmp/err)" "smaller" "the error of a smaller pool"
eventually 10 told "The pool holm-pool has grown: data from"
eventually 10 told "Subject: The pool has grown"
eventually 10 told "is set by \"data_max_size\""
entry=$(journalctl -b -u holmd -o json MESSAGE_ID=49038552120147279164b4e40dbbda14 | tail -n 1)
assert_has "$entry" '"POOL":"holm-pool"' "the entry's fields"
assert_has "$entry" "\"DATA_TOTAL\":\"$((data + (64 << 20)))\"" "the entry's fields"

# Trim gives back what was deleted.
ready() { test "$(holmctl exec web ls /big 2>/dev/null | wc -l)" -eq 0 && holmctl exec web pidof sleep >/dev/null; }
eventually 30 ready
used=$(number DataUsed)
assert_match "$(holmctl device trim 2>/dev/null)" "^[0-9.]+[KMG] given back, [1-9][0-9]* devices in use.$" "device trim"
[ "$(number DataUsed)" -lt "$used" ] || fail "nothing came back: $used before, $(number DataUsed) after"

assert_match "$(holmctl device trim web mine)" "^web: [0-9.]+[BKMG] given back.
mine: [0-9.]+[BKMG] given back.$" "device trim of some"
refused 125 "no device" holmctl device trim nobody

# All is well, and nothing changes by looking.
assert_match "$(holmctl device check 2>/dev/null)" "^[0-9]+ devices looked at, all is well.$" "device check"
json holmctl device check
assert_eq "[]" "$(python3 -c 'import json; print(json.load(open("/tmp/json"))["findings"])')" "findings"

# A device on no record: made behind holmd's back while it is away, found at its start, listed, and deleted only by hand.
systemctl stop holmd
dmsetup message holm-pool 0 "create_thin 4000"
systemctl start holmd
eventually 10 told "on no record, and left alone: thin device 4000"
eventually 10 told "are never deleted by themselves"
assert_has "$(holmctl device check 2>/dev/null)" "'holmctl device rm --foreign 4000'" "device check"
refused 125 "on no record" holmctl device rm --foreign 4001
holmctl device rm --foreign 4000
refute grep -q 4000 <(holmctl device check 2>/dev/null)

# A label that was written over is found, told, and written anew.
holmctl device mount mine /mnt
holmctl device umount mine
node=$(busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet ActivateDevice s mine | sed 's/^s "//; s/"$//')
mount "$node" /mnt
label=$(find /mnt -maxdepth 1 -type f | head -n 1)
test -n "$label" || fail "no label: $(ls -la /mnt)"
rm "$label"
umount /mnt
busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet DeactivateDevice s mine
assert_status 1 holmctl device check >/tmp/out 2>/dev/null
assert_has "$(cat /tmp/out)" "mine: it has no label of its own: 'holmctl device check --repair'" "device check"
eventually 10 told "things of the pool's devices do not agree"
assert_match "$(holmctl device check --repair 2>/dev/null)" "all is well.$" "device check --repair"
holmctl device check >/dev/null 2>&1 || fail "not well after a repair"

# The journal is lost: with holmd stopped everything comes back under its name.
refused 125 "systemctl stop holmd" holmctl device salvage
holmctl stop web
holmctl device list --json | python3 -c 'import json, sys; print(*sorted(device["id"] for device in json.load(sys.stdin)), sep="\n")' >/tmp/before
systemctl stop holmd
rm /var/lib/holm/pool/journal*
json holmctl device salvage
systemctl start holmd
holmctl device list --json | python3 -c 'import json, sys; print(*sorted(device["id"] for device in json.load(sys.stdin)), sep="\n")' >/tmp/after
diff -u /tmp/before /tmp/after || fail "devices before and after a salvage"
assert_eq 0 "$(holmctl run --rm busybox true; echo $?)" "an image works after a salvage"
holmctl start web
holmctl rm --force web
holmctl device rm mine
