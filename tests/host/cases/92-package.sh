#!/bin/bash
# guest: own
# vm: VM_BARE=1
# needs: deb
# timeout: 120
# The Debian package on a plain system: installed, used, upgraded under a running container, removed without a trace.

install() { dpkg -i /host/holm.deb >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"; }
units_of_holm() { systemctl list-units --all --no-legend --plain 'holm*' | awk '$1 !~ /^holm-test/ && $2 != "not-found" { print $1 }'; }

install
assert_eq active "$(systemctl is-active holmd.service)" "holmd after the installation"
assert_eq enabled "$(systemctl is-enabled holmd.service)" "holmd after the installation"
# A systemd before 254 does not know the key, and says so.
assert_eq "" "$(journalctl -b -p warning -o cat -u holmd.service | grep -v FileDescriptorStorePreserve || true)" "warnings of holmd"
systemctl --no-pager status holmd.service
holmctl doctor
holmctl image import /host/images/busybox.tar --name busybox
assert_eq hello "$(holmctl run --rm busybox echo hello)" "a container of the package"

holmctl run -d --name stays --stop-timeout 1 busybox sh -c 'trap "exit 6" TERM; while :; do sleep 0.1; done' >/dev/null
leader=$(holmctl show stays -p Leader --value) daemon=$(pgrep -x holmd)
install
assert_eq active "$(systemctl is-active holmd.service)" "holmd after an upgrade"
[ "$(pgrep -x holmd)" != "$daemon" ] || fail "the old holmd runs after an upgrade"
assert_eq "$leader" "$(holmctl show stays -p Leader --value)" "the leader after an upgrade"
holmctl exec stays true

dpkg --purge holm >/tmp/dpkg 2>&1 || fail "dpkg: $(cat /tmp/dpkg)"
refute pgrep -x holmd
refute test -e "/proc/$leader"
eventually_eq 10 "" units_of_holm
assert_eq "" "$(systemctl list-unit-files --no-legend 'holm*' | grep -v holm-test || true)" "unit files left"
assert_eq "" "$(find /etc /usr /run -path /usr/lib/holm-test -prune -o -path /run/holm-test -prune -o -path '*/wants/holm-test.service' -prune \
    -o -name '*holm*' -print | grep -E '/holm[^/]*$' | grep -vE 'holm-test|/run/holm-[a-z]+\.out|zoneinfo' || true)" "files left"
assert_eq "" "$(dmsetup ls | grep holm || true)" "devices left"
assert_eq "" "$(losetup -l -n)" "loop devices left"
refute busctl status org.holm1
# What the containers were is kept, and there again.
install
assert_eq 6 "$(holmctl show stays -p ExitStatus --value)" "exit status of the container that the removal stopped"
holmctl start stays
holmctl rm --force stays
