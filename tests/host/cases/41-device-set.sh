#!/bin/bash
# guest: shared
# timeout: 120
# org.holm1.DeviceSet for other software: a program keeps trees of its own in the pool over the bus alone. Every method, and
# every wrong call a named error that changes nothing.

set_() { busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet "$@"; }
property() { busctl get-property org.holm1 /org/holm1/deviceset org.holm1.DeviceSet "$1"; }
listed() { set_ ListDevices | grep -q "\"$1\""; }
# Ids and mounts: what is active and mapped changes by itself.
state() { set_ ListDevices | grep -o '"[^"]*"' | sort; findmnt -rn -o TARGET; }
# refused ERROR TEXT METHOD ARGUMENT… : an error of that name with that text, and everything as before.
refused() {
    local name=$1 text=$2 before
    shift 2
    before=$(state)
    if SYSTEMD_LOG_LEVEL=debug set_ "$@" >/tmp/out 2>/tmp/err; then fail "should be refused: $*"; fi
    assert_has "$(cat /tmp/err)" "error-name=org.holm1.Error.$name " "the error's name of $*"
    assert_has "$(cat /tmp/err)" "$text" "the error of $*"
    assert_eq "$before" "$(state)" "what there is after a refused $*"
}
gone() { ! listed "$1"; }

me=tree$$
dir=/tmp/$me
mkdir -p "$dir/a" "$dir/b c" "$dir/ns"
# What cases before left to the remover is gone, and what is shown is new.
quiet() { [ "$(property Devices)" = "u $(holmctl device list --no-legend | wc -l)" ] && [ "$(dmsetup ls | grep -c '^holm-')" -eq 1 ]; }
eventually 20 quiet
before=$(property Devices)

# A tree of one's own, from the empty one.
set_ AddDevice 'ssa{sv}' "$me" base 0
listed "$me" || fail "what was added is not listed"
assert_eq "u $((${before#u } + 1))" "$(property Devices)" "Devices, as the reply comes"
holmctl device mount "$me" "$dir/a"
findmnt -rn -o OPTIONS "$dir/a" | grep -q nosuid || fail "options of the mount: $(findmnt -rn "$dir/a")"
assert_eq "" "$(ls -A "$dir/a")" "a tree from the base"
echo one >"$dir/a/file"
test ! -e "$dir/a/rootfs" || fail "more than the tree is seen"

# A snapshot of it while it is in use says how long it was held still, and has what was written before.
frozen=$(set_ SnapshotDevice 'ssa{sv}' "$me-copy" "$me" 1 Size t $((11 << 30)))
[ "${frozen#t }" -gt 0 ] || fail "the base was in use, but held still for $frozen"
echo two >"$dir/a/file"
holmctl device mount --read-only "$me-copy" "$dir/b c"
assert_eq one "$(cat "$dir/b c/file")" "what a snapshot has"
refute touch "$dir/b c/new" 2>/dev/null

# Larger while it is mounted, and never smaller.
size=$(df --output=size "$dir/a" | tail -n 1)
set_ ResizeDevice st "$me" $((12 << 30)) | grep -q "$((12 << 30))"
[ "$(df --output=size "$dir/a" | tail -n 1)" -gt "$size" ] || fail "the file system is as small as before"
refused NotSupported "smaller" ResizeDevice st "$me" $((1 << 30))

# In use it stays.
refused DeviceInUse "$me" RemoveDevice s "$me"
sleep 1000 <"$dir/a/file" & keeper=$!
(cd "$dir/a" && exec sleep 1000) & inside=$!
cwd() { [ "$(readlink "/proc/$inside/cwd")" = "$dir/a" ]; }
eventually 5 cwd
refused DeviceInUse "fuser -vm $dir/a" UnmountDevice s "$me"
kill "$keeper" "$inside"; wait "$keeper" "$inside" 2>/dev/null || true

# Also after a restart of holmd, which remembers nothing of mounts.
systemctl restart holmd
set_ UnmountDevice s "$me-copy"
set_ UnmountDevice s "$me"
refute mountpoint -q "$dir/a"
refute mountpoint -q "$dir/b c"
refused NotMounted "not mounted" UnmountDevice s "$me"

# What somebody has in a mount namespace of its own is put there, and nowhere else, and is taken away from there.
unshare --mount --propagation private bash -eu -c '
    holmctl device mount "$1" "$2/ns"
    test "$(cat "$2/ns/file")" = two
    test "$(nsenter -t 1 -m findmnt -rn "$2/ns" | wc -l)" -eq 0
    holmctl device umount "$1"
    ! mountpoint -q "$2/ns"' - "$me" "$dir" || fail "in a mount namespace of its own"

# The tree as a descriptor, which keeps the device in use.
python3 - "$me" <<'P' || fail "OpenDevice"
import ctypes, os, subprocess, sys
# sd-bus by hand would be long: busctl cannot pass descriptors on, gdbus neither.
libsystemd = ctypes.CDLL("libsystemd.so.0")
bus, reply, fd = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int(-1)
assert libsystemd.sd_bus_open_system(ctypes.byref(bus)) >= 0
names = [b"org.holm1", b"/org/holm1/deviceset", b"org.holm1.DeviceSet", b"OpenDevice"]
result = libsystemd.sd_bus_call_method(bus, *names, None, ctypes.byref(reply), b"s", sys.argv[1].encode())
assert result >= 0, os.strerror(-result)
assert libsystemd.sd_bus_message_read(reply, b"h", ctypes.byref(fd)) >= 0
assert os.listdir(f"/proc/self/fd/{fd.value}/") == ["file"], "the tree and nothing else"
with open(f"/proc/self/fd/{fd.value}/file") as file:
    assert file.read() == "two\n"
with open(f"/proc/self/fd/{fd.value}/opened", "w") as file:
    file.write("here\n")
assert subprocess.run(["findmnt", "-rn", "-S", "/dev/dm-*"], capture_output=True).stdout == b""
call = ["busctl", "call", "org.holm1", "/org/holm1/deviceset", "org.holm1.DeviceSet", "RemoveDevice", "s", sys.argv[1]]
assert subprocess.run(call, capture_output=True).returncode != 0, "removed while it is open"
P

# Active for as long as it is asked for, also over a restart.
node=$(set_ ActivateDevice s "$me"); node=${node#s \"}; node=${node%\"}
test -b "$node" || fail "ActivateDevice gave '$node'"
assert_eq "$((12 << 30))" "$(blockdev --getsize64 "$node")" "the size of the block device"
systemctl restart holmd
test -b "$(set_ ActivateDevice s "$me" | sed 's/^s "//; s/"$//')" || fail "asked twice it is not there"
exec 9<"$node"
refused DeviceInUse "$me" DeactivateDevice s "$me"
exec 9<&-
set_ DeactivateDevice s "$me"
set_ DeactivateDevice s "$me"
idle() { busctl --json=short call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet ListDevices | grep -q "\"$me\",[0-9]*,\"base\",[0-9]*,false"; }
idle || fail "still active after DeactivateDevice: $(set_ ListDevices)"

# What is described, and what is measured.
busctl --json=short call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet DescribeDevices >/tmp/described
busctl --json=short call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet MeasureDevices >/tmp/measured
python3 - "$me" <<'P' || fail "DescribeDevices: $(cat /tmp/described); MeasureDevices: $(cat /tmp/measured)"
import json, sys
me = sys.argv[1]
described = {id: {key: value["data"] for key, value in known.items()} for id, known in json.load(open("/tmp/described"))["data"][0]}
mine, copy, base = described[me], described[f"{me}-copy"], described["base"]
assert mine["Base"] == "base" and mine["Size"] == 12 << 30 and not mine["Own"] and mine["State"] == "ready" and not mine["Active"], mine
assert copy["Base"] == me and base["Own"] and "Base" not in base
layers = [known for id, known in described.items() if id.startswith("layer:")]
assert layers and all(any(user.startswith("image ") for user in layer["Users"]) for layer in layers)
measured = dict(json.load(open("/tmp/measured"))["data"][0])
assert set(measured) == set(described), (measured, described)
assert 0 < measured[me] <= mine["Mapped"], (measured[me], mine)
P

# Wrong calls.
refused InvalidConfig "unknown option 'Colour'" AddDevice 'ssa{sv}' "$me-x" base 1 Colour s red
refused InvalidConfig "option 'Size' wants a value of type 't'" AddDevice 'ssa{sv}' "$me-x" base 1 Size s much
refused InvalidConfig "option 'Size'" AddDevice 'ssa{sv}' "$me-x" base 1 Size t 0
refused InvalidName "not a valid device id" AddDevice 'ssa{sv}' "../x" base 0
refused NameInUse "in use" AddDevice 'ssa{sv}' "$me" base 0
refused NoSuchDevice "no device" AddDevice 'ssa{sv}' "$me-x" nobody 0
for id in base ballast holm-x container:x layer:x image:x snapshot:x; do
    refused DeviceReserved "Holm's own" AddDevice 'ssa{sv}' "$id" base 0
    refused DeviceReserved "Holm's own" RemoveDevice s "$id"
    refused DeviceReserved "Holm's own" ActivateDevice s "$id"
    refused DeviceReserved "Holm's own" ResizeDevice st "$id" $((20 << 30))
done
for method in RemoveDevice ActivateDevice DeactivateDevice OpenDevice UnmountDevice; do
    refused NoSuchDevice "no device" "$method" s nobody
done
refused NoSuchDevice "on no record" RemoveForeign u 4711
refused NotSupported "smaller" ResizeDevice st "$me" 1
assert_has "$(holmctl device mount base "$dir/a" 2>&1 || true)" "Holm's own" "mounting the base for writing"
refute mountpoint -q "$dir/a"
holmctl device mount --read-only base "$dir/a"
refute touch "$dir/a/x" 2>/dev/null
holmctl device umount base

# A container's root can be read by others, and kept as a tree of one's own; it cannot be written.
holmctl create --name "$me" busybox true >/dev/null
root=container:$(holmctl show "$me" -p Id --value)
refused DeviceReserved "holmctl rm" RemoveDevice s "$root"
set_ AddDevice 'ssa{sv}' "$me-kept" "$root" 0
holmctl rm "$me"
holmctl device mount "$me-kept" "$dir/a"
test -x "$dir/a/bin/busybox" || fail "the tree of a container that is gone"
holmctl device umount "$me-kept"
set_ RemoveDevice s "$me-kept"

# Anybody may look, only root may change.
runuser -u nobody -- busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet ListDevices >/dev/null || fail "nobody cannot look"
for call in "AddDevice ssa{sv} n base 0" "RemoveDevice s $me" "OpenDevice s $me" "ActivateDevice s $me" "Grow tt 0 0" "Check" "Repair" "Trim" "RemoveForeign u 1" "ResizeDevice st $me 1"; do
    # shellcheck disable=SC2086
    if runuser -u nobody -- busctl call org.holm1 /org/holm1/deviceset org.holm1.DeviceSet $call 2>/tmp/err; then fail "nobody may: $call"; fi
    assert_has "$(cat /tmp/err)" "not authorized for org.holm1.manage-storage" "$call by nobody"
done

# Removed, each at once, though it was unmounted a moment ago.
holmctl device mount "$me" "$dir/a"
holmctl device umount "$me"
set_ RemoveDevice s "$me"
set_ RemoveDevice s "$me-copy"
eventually 10 gone "$me"
eventually 10 gone "$me-copy"
eventually_eq 10 "$before" property Devices
rm -r "$dir"
