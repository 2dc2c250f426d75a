#!/bin/bash
# guest: own
# timeout: 300
# Driver copy, whole: containers whose roots are directories, copies that keep everything, and trees that are never deleted
# under somebody, also by a daemon that did not give them out.

holmctl run --rm busybox sh -c 'cd / && tar -cf - $(for d in bin sbin usr lib lib64 etc; do [ -e $d ] && echo $d; done)' >/run/busybox.tar
holmctl run --rm debian tar -C / -cf - --one-file-system --exclude=./proc --exclude=./sys --exclude=./dev . >/run/debian.tar
systemctl stop holmd
mkdir -p /etc/holm/holm.toml.d
cat >/etc/holm/holm.toml.d/90-copy.toml <<X
[storage]
driver = "copy"
directory = "/var/lib/holm-copy"
X
systemctl start holmd
pool=/var/lib/holm-copy/pool
trees=$pool/trees
assert_match "$(busctl get-property org.holm1 /org/holm1/deviceset org.holm1.DeviceSet Driver)" copy "the driver"
holmctl image import --name box /run/busybox.tar >/dev/null
holmctl image import --name deb /run/debian.tar >/dev/null

took() {
    local before=$EPOCHREALTIME what=$1
    shift
    "$@"
    note "$what took $(awk -v a="$before" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.0f ms", (b - a) * 1000 }')"
}
took "creating a container of debian, with $(du -sm $trees | awk '{ print $1 }') MiB in all trees before," holmctl create --name big deb sleep 1000 >/dev/null
holmctl rm big

# What a container is.
assert_eq hello "$(holmctl run --rm box echo hello)"
assert_status 7 holmctl run --rm box sh -c 'exit 7'
loop='trap "exit 0" TERM; while :; do sleep 0.1; done'
holmctl run -d --name web --stop-timeout 5 box sh -c "$loop" >/dev/null
holmctl exec web sh -c 'echo one >/file'
holmctl stop web
holmctl start web
assert_eq one "$(holmctl exec web cat /file)" "what was written before a stop"

# Everything about files, seen from outside as they are on the disk.
root() { echo "$trees/container:$(holmctl show "$1" -p Id --value)/rootfs"; }
holmctl stop web
holmctl snapshot web plain >/dev/null 2>&1
tree=$(root web)/kept
mkdir "$tree"
(
    cd "$tree"
    mkdir -p d/deep
    echo text >d/file
    ln d/file d/deep/same
    ln d/file also
    chown 1234:4321 d/file
    chmod 6755 d/file
    cp /bin/true capable
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 capable 2>/dev/null ||
        python3 -c 'import os; os.setxattr("capable", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))'
    python3 - <<'P'
import os, socket, struct
os.setxattr("d/file", "user.note", b"kept")
os.setxattr("d", "trusted.note", b"too")
# A list of access for one more user (acl(5)).
entry = lambda tag, perm, who=0xffffffff: struct.pack("<HHI", tag, perm, who)
acl = struct.pack("<I", 2) + entry(1, 7) + entry(2, 5, 77) + entry(4, 5) + entry(16, 5) + entry(32, 0)
os.setxattr("d/deep", "system.posix_acl_access", acl)
with open("sparse", "wb") as file:
    file.seek(8 << 20); file.write(b"middle"); file.truncate(64 << 20)
socket.socket(socket.AF_UNIX).bind("socket")
P
    mkfifo -m 620 fifo
    mknod -m 600 null c 1 3
    ln -s /nowhere link
    ln -s fifo link2
    touch -d '2001-02-03 04:05:06.123456789' d/file link2 -h
    touch -d '2002-02-03 04:05:06.987654321' d/deep d .
)
cat >/run/listing <<'P'
import os, stat, sys
top = sys.argv[1]
first = {}
for path, directories, names in sorted(os.walk(top)):
    for name in sorted(names + directories) + ["."]:
        at = os.path.join(path, name)
        s = os.lstat(at)
        xattrs = [(n, os.getxattr(at, n, follow_symlinks=False)) for n in sorted(os.listxattr(at, follow_symlinks=False))]
        same = first.setdefault(s.st_ino, os.path.relpath(at, top))
        holes = s.st_blocks * 512 < s.st_size // 2
        content = os.readlink(at) if stat.S_ISLNK(s.st_mode) else hash(open(at, "rb").read()) if stat.S_ISREG(s.st_mode) else ""
        print(os.path.relpath(at, top), oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev, s.st_mtime_ns, s.st_nlink, same, xattrs, holes, content)
P
listing() { PYTHONHASHSEED=0 python3 /run/listing "$1"; }
listing "$tree" >/run/before
assert_has "$(cat /run/before)" "security.capability" "the listing"
assert_has "$(cat /run/before)" "system.posix_acl_access" "the listing"
holmctl clone web copied >/dev/null 2>&1
listing "$(root copied)/kept" >/run/after
diff /run/before /run/after || fail "a clone is not the same"
assert_eq "$((64 << 20))" "$(stat -c %s "$(root copied)/kept/sparse")"
[ "$(stat -c %b "$(root copied)/kept/sparse")" -lt 2048 ] || fail "the holes were filled"
listing "$(root web)" >/run/before
listing "$(root copied)" >/run/after
diff /run/before /run/after || fail "a clone's whole tree is not the same"
holmctl start copied
holmctl exec copied sh -c 'echo two >/file'
assert_eq one "$(cat "$(root web)/file")" "a clone is a copy"
holmctl stop copied

# Snapshots and the way back.
holmctl rollback web plain
[ ! -e "$(root web)/kept" ] || fail "what came after the snapshot is still there"
holmctl start web
assert_eq one "$(holmctl exec web cat /file)" "what was there before the snapshot"
assert_match "$(holmctl rollback web plain 2>&1)" "is running: stop it first"
holmctl snapshot web running >/dev/null 2>&1
assert_eq running "$(holmctl show web -p State --value)" "state after a snapshot"

# The upkeep: what there is works, what there is not says so.
assert_has "$(holmctl device list)" "container:$(holmctl show web -p Id --value)" "the list"
holmctl device check >/dev/null
holmctl device trim >/dev/null
holmctl device add tree
assert_match "$(holmctl device grow tree 20G 2>&1)" "quotas" "a size of a device"
assert_match "$(holmctl update --size 20G web 2>&1)" "quotas" "a size of a root"
assert_match "$(holmctl create --size 20G box true 2>&1)" "quotas" "a size of a new root"
assert_match "$(holmctl device grow --data 1T 2>&1; journal_tail holmd.service 5)" "has no pool: its room is that of the file system" "growing the pool"

# A daemon that starts anew knows who uses what.
active() { holmctl device list --json | python3 -c 'import json, sys; print(*[d["id"] for d in json.load(sys.stdin) if d["active"]])'; }
assert_eq "container:$(holmctl show web -p Id --value)" "$(active)" "what is active"
mkdir -p /run/mnt
holmctl device mount tree /run/mnt
echo mine >/run/mnt/file
systemctl restart holmd
assert_eq running "$(holmctl show web -p State --value)" "state after a restart"
assert_has "$(active)" "container:$(holmctl show web -p Id --value)" "what is active after a restart"
assert_eq one "$(holmctl exec web cat /file)" "its tree after a restart"
refute holmctl device rm tree
assert_match "$(holmctl device rm tree 2>&1 || true)" "mounted on /run/mnt"
assert_eq mine "$(cat /run/mnt/file)"

# A tree that was removed and is mounted stays until that ends, over restarts too.
mv $trees/tree $pool/trash/77
for _ in 1 2; do
    systemctl restart holmd
    always 3 test -e /run/mnt/file
done
umount /run/mnt
deleted() { [ ! -e $pool/trash/77 ]; }
eventually 20 deleted
assert_eq one "$(holmctl exec web cat /file)" "the tree of a container that ran on"

# Nothing is left.
holmctl rm -f web copied
holmctl image rm box deb >/dev/null
only_base() { [ "$(ls -A $trees) $(ls -A $pool/pending $pool/trash | grep -v : | xargs)" = "base " ]; }
eventually 20 only_base
assert_eq "" "$(active)" "what is active at the end"
