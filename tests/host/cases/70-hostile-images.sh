#!/bin/bash
# guest: shared
# Layers that try to write outside, and archives that are damaged.

work=$(mktemp -d)
cd "$work"
python3 - <<'P'
import io, tarfile
def make(name, *entries):
    with tarfile.open(name, "w") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
def file(name, data=b"evil", **more):
    info = tarfile.TarInfo(name); info.mode = 0o644
    for key, value in more.items(): setattr(info, key, value)
    return info, data
def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name); info.type = kind; info.linkname = target
    return info, b""
bin = file("bin/sh", b"#!")
make("dotdot.tar", bin, file("../../../../etc/holm-evil"))
make("absolute.tar", bin, file("/etc/holm-evil"))
make("symlink.tar", bin, link("a", "/etc"), file("a/holm-evil"))
make("chained.tar", bin, link("a", "b"), link("b", "../../../../../etc"), file("a/holm-evil"))
make("hardlink.tar", bin, link("shadow", "../../../../etc/shadow", tarfile.LNKTYPE))
make("hardlink2.tar", bin, link("a", "/etc"), link("shadow", "a/shadow", tarfile.LNKTYPE))
make("whiteout.tar", bin, file("../../.wh.etc", b""))
make("whiteout2.tar", bin, link("a", "/"), file("a/.wh.etc", b""))
dev = tarfile.TarInfo("disk"); dev.type = tarfile.BLKTYPE; dev.devmajor = 98; dev.devminor = 0; dev.mode = 0o666
make("device.tar", bin, (dev, b""))
P
before=$(find /etc -xdev | sort | sha256sum; sha256sum /etc/shadow)
devices=$(holmctl device list --no-legend | wc -l)
for archive in dotdot absolute symlink chained hardlink hardlink2 whiteout whiteout2 device; do
    if holmctl image import "$archive.tar" --name "evil-$archive" >/tmp/out 2>&1; then
        holmctl image rm "evil-$archive"
    else
        grep -q . /tmp/out || fail "$archive: refused without a word"
    fi
    test ! -e /etc/holm-evil || fail "$archive wrote outside its root"
    test ! -e /holm-evil || fail "$archive wrote outside its root"
done
assert_eq "$before" "$(find /etc -xdev | sort | sha256sum; sha256sum /etc/shadow)" "the host's /etc"
now() { holmctl device list --no-legend | wc -l; }; eventually_eq 10 "$devices" now

# A device node in an image opens nothing.
if holmctl image import device.tar --name evil-device >/dev/null 2>&1; then
    holmctl image rm evil-device
fi

# Damaged archives: cut short, flipped bits, not an archive at all.
cp /host/images/busybox.tar good.tar
size=$(stat -c %s good.tar)
for cut in 10 1000 $((size / 3)) $((size * 9 / 10)); do
    head -c "$cut" good.tar >cut.tar
    if holmctl image import cut.tar --name cut >/tmp/out 2>&1; then fail "an archive cut at $cut of $size was taken"; fi
    grep -q '^holmctl: ' /tmp/out || fail "no clear error for an archive cut at $cut: $(cat /tmp/out)"
done
gzip -c good.tar >good.tar.gz
printf '\xff\xff\xff' | dd of=good.tar.gz bs=1 seek=$(($(stat -c %s good.tar.gz) / 2)) conv=notrunc status=none
if holmctl image import good.tar.gz --name flipped >/tmp/out 2>&1; then fail "a corrupt gzip was taken"; fi
if head -c 100000 /dev/urandom | holmctl image import - --name noise >/tmp/out 2>&1; then fail "noise was taken"; fi
if holmctl image import /dev/null --name nothing >/tmp/out 2>&1; then fail "nothing was taken"; fi
now() { holmctl device list --no-legend | wc -l; }; eventually_eq 10 "$devices" now
eventually 15 sh -c 'test "$(dmsetup ls | grep -c ^holm-)" = 1'

# The same image by every way in.
for how in 'cat good.tar' 'gzip -c good.tar' 'xz -0 -c good.tar' 'zstd -q -c good.tar'; do
    command -v ${how%% *} >/dev/null || continue
    $how | holmctl image import - --name again >/dev/null || fail "$how | holmctl image import -"
    assert_eq hi "$(holmctl run --rm again echo hi)" "an image imported through '$how'"
    holmctl image rm again
done
holmctl run --rm busybox tar -C / -cf - bin etc >plain.tar </dev/null
holmctl image import plain.tar --name plain >/dev/null
assert_eq hi "$(holmctl run --rm plain /bin/sh -c 'echo hi')" "a plain tree"
holmctl image rm plain
rm -rf "$work"
