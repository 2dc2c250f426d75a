# guest: reboot
# phases: cut off off
# The disk of the test host survives a power cut: what was synced is there, the journal of the boot that was cut can be read, the file system is sound.
phase_1() {
    echo kept >/var/tmp/synced
    sync
    logger --id=$$ -t power-cut "before the cut"
    journalctl --sync
    dd if=/dev/urandom of=/var/tmp/in-flight bs=1M count=20 status=none
}
phase_2() {
    assert_eq "$(cat /var/tmp/synced)" kept "the file that was synced"
    journalctl -b -1 -t power-cut -o cat | grep -qx 'before the cut' || fail "the journal of the first boot is not there"
    assert_eq "$(journalctl --list-boots --no-pager | grep -Ec '^ *(-1|0) ')" 2 "boots in the journal"
    touch /var/tmp/second
}
phase_3() {
    [ -e /var/tmp/second ]
    journalctl -b -1 --no-pager | grep -Eq 'Reached target .*(Power[- ]Off|System Power Off|Shutdown)' || fail "the second boot was not shut down in order"
    assert_eq "$(dmesg | grep -ciE 'ext4-fs error|i/o error')" 0 "errors of the file system"
}
