# Device-mapper of the test host: a thin pool on loop devices, a volume, a snapshot that does not see later writes, udev's cookies.
work=$(mktemp -d)
clean_up() {
    umount "$work/a" "$work/b" 2>/dev/null || true
    for device in t-snap t-origin t-pool; do dmsetup remove --retry "$device" 2>/dev/null || true; done
    for loop in ${data-} ${meta-}; do losetup -d "$loop"; done
    rm -rf "$work"
}
trap clean_up EXIT
modprobe -qa dm-thin-pool loop || true
truncate -s 1G "$work/data"
truncate -s 16M "$work/meta"
data=$(losetup -f --show "$work/data") meta=$(losetup -f --show "$work/meta")
dmsetup create t-pool --table "0 $(blockdev --getsz "$data") thin-pool $meta $data 128 0"
dmsetup message t-pool 0 "create_thin 0"
dmsetup create t-origin --table "0 524288 thin /dev/mapper/t-pool 0"
[ -b /dev/mapper/t-origin ] || fail "udev made no node"
mkfs.ext4 -q /dev/mapper/t-origin
mkdir "$work/a" "$work/b"
mount /dev/mapper/t-origin "$work/a"
echo before >"$work/a/file"
dmsetup suspend t-origin
dmsetup message t-pool 0 "create_snap 1 0"
dmsetup resume t-origin
echo after >"$work/a/file"
dmsetup create t-snap --table "0 524288 thin /dev/mapper/t-pool 1"
mount /dev/mapper/t-snap "$work/b"
assert_eq "$(cat "$work/b/file")" before "what the snapshot has"
assert_eq "$(dmsetup udevcookies | tail -n +2)" "" "udev cookies left"
