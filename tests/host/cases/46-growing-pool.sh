#!/bin/bash
# guest: own
# timeout: 180
# Three containers fill a pool that may grow, as fast as they can: none of them meets an error, nothing hangs, everything they wrote is there.

holmctl run --rm busybox sh -c 'cd / && tar -cf - $(for d in bin sbin usr lib lib64 etc; do [ -e $d ] && echo $d; done)' >/run/busybox.tar
systemctl stop holmd
mkdir -p /etc/holm/holm.toml.d
cat >/etc/holm/holm.toml.d/90-small.toml <<X
[storage]
directory = "/var/lib/holm-small"
prefix = "small"
data-size = "320M"
data-max-size = "2G"
[log]
level = "debug"
X
systemctl start holmd
holmctl image import --name writer /run/busybox.tar >/dev/null

# Each writes 300 MiB, more than the pool's first size in all, then looks whether it is there.
for n in 1 2 3; do
    holmctl create --name "w$n" writer sh -c '
        for i in $(seq 75); do dd if=/dev/urandom of=/f$i bs=1M count=4 2>/dev/null || exit 1; sha256sum /f$i >>/sums || exit 1; done
        sync && sha256sum -c /sums >/dev/null' >/dev/null
done
holmctl start w1 w2 w3
for n in 1 2 3; do assert_status 0 holmctl wait "w$n"; done
total=$(holmctl device status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["DataTotal"] >> 20)')
grown=$(journalctl -b -u holmd -o json | python3 -c '
import json, sys
for entry in map(json.loads, sys.stdin):
    if entry["MESSAGE"].startswith("grew the pool"): print("to", entry["TO"], "in", entry["TOOK"])')
note "the pool grew from 320 MiB to $total MiB: $(echo "$grown" | xargs)"
[ "$(echo "$grown" | wc -l)" -ge 2 ] || fail "the growths are not told of"
[ "$total" -ge 1000 ] || fail "it did not grow by what was written"
journalctl -b -u holmd -o cat | grep -E 'held still|out of data' && fail "writers were held although the pool could grow"
dmesg | grep -E 'I/O error|lost async page write|blocked for more than|Remounting filesystem read-only' && fail "the kernel met an error"
holmctl rm w1 w2 w3
