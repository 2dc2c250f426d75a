#!/bin/bash
# guest: reboot
# phases: off off off off
# timeout: 90
# An orderly shutdown: every container of nobody gets its own stop signal and its own time, all side by side; the storage, which lies on a file system
# of its own here, is there meanwhile and given back before that is unmounted; and the next boot knows how each ended. The same with holmd dead, and
# with the bus gone.

log=/var/log/shutdown
polite() { printf "trap 'echo %s >>/log/%s; sleep 1; echo ended >>/log/%s; exit 7' %s; echo ready >>/log/%s; while :; do sleep 0.05; done" "$2" "$1" "$1" "$2" "$1"; }
run() { local name=$1; shift; holmctl run -d --name "$name" -v "$log:/log" "$@" >/dev/null; }
# begin : a set of containers, each in another state.
begin() {
    rm -rf "$log"
    mkdir -p "$log"
    run one busybox sh -c "$(polite one TERM)"
    run two --stop-signal INT --stop-timeout 20 busybox sh -c "trap 'echo wrong >>/log/two' TERM; $(polite two INT)"
    run deaf --stop-timeout 4 busybox sh -c "trap 'echo TERM >>/log/deaf' TERM; echo ready >>/log/deaf; while :; do sleep 0.1; done"
    run cold busybox sh -c "$(polite cold TERM)"
    run iced busybox sh -c "$(polite iced TERM)"
    for name in one two deaf cold iced; do eventually 10 grep -q ready "$log/$name"; done
    holmctl freeze cold
    systemctl freeze holm-iced.scope
    # Its payload hears nothing before it has finished booting, which is after it was asked to stop.
    run early busybox sh -c "echo begun >>/log/early; sleep 3; $(polite early TERM)"
    eventually 10 grep -q begun "$log/early"
    # What systemd says after the journal has gone.
    echo 8 >/proc/sys/kernel/printk
}
saw() { tr '\n' ' ' <"$log/$1" | sed 's/ $//'; }
stopped() { holmctl show "$1" -p StoppedUSec --value; }
# ended CONSOLE : how all that begin() began has ended.
ended() {
    local name errors
    for name in one cold iced; do assert_eq "ready TERM ended" "$(saw "$name")" "what $name saw"; done
    assert_eq "ready INT ended" "$(saw two)" "what two saw"
    assert_eq "begun ready TERM ended" "$(saw early)" "what early saw"
    assert_eq "ready TERM" "$(saw deaf)" "what deaf saw"
    for name in one two cold iced early; do
        assert_eq "7 exit-code stopped" "$(holmctl show "$name" -p ExitStatus --value) $(holmctl show "$name" -p Result --value) $(holmctl show "$name" -p State --value)" "how $name ended"
    done
    assert_eq "137 timeout failed" "$(holmctl show deaf -p ExitStatus --value) $(holmctl show deaf -p Result --value) $(holmctl show deaf -p State --value)" "how deaf ended"
    # Side by side: nobody waits for the deaf one, which takes its four seconds.
    local one two deaf
    one=$(stopped one) two=$(stopped two) deaf=$(stopped deaf)
    test $((deaf - one)) -gt 2000000 -a $((deaf - one)) -lt 6000000 || fail "deaf ended $(((deaf - one) / 1000)) ms after one"
    test $((two > one ? two - one : one - two)) -lt 1500000 || fail "one and two ended $(((two - one) / 1000)) ms apart"
    note "ended after one: two $(((two - one) / 1000)) ms, early $((($(stopped early) - one) / 1000)) ms, deaf $(((deaf - one) / 1000)) ms"

    journalctl -b -1 --no-pager -o short-monotonic >/tmp/before
    refute grep -E 'holm-[a-z]*\.(scope|service): .*(timed out|Killing process|SIGKILL|Failed with)' /tmp/before
    refute grep -E 'device-mapper: .*(fail|error)|Buffer I/O|EXT4-fs error' /tmp/before
    refute grep -E 'srv-holm.mount.*(busy|Failed)|umount: \/srv' /tmp/before
    # Nothing was left for the last sweep: no process, no mount, no loop device, no device-mapper.
    assert_has "$(cat "$1")" 'All filesystems, swaps, loop devices, MD devices and DM devices detached' "the kernel's console"
    refute grep -aE 'Detaching (loopback|DM) \/|Could not (unmount|detach)|Failed to (unmount|detach)|is busy|Sending SIGKILL to PID' "$1"
    # And the file system was clean when it was mounted again.
    refute grep needs_recovery /run/holm-look
    grep -q 'Filesystem state: *clean' /run/holm-look || fail "$(cat /run/holm-look)"
    refute grep -E 'EXT4-fs.*recovery' <(journalctl -b -k --no-pager)
    assert_eq ok "$(holmctl device status --json | grep -o '"State": *"[a-z-]*"' | cut -d'"' -f4)" "state of the pool"
    holmctl start one
    holmctl exec one true
    holmctl rm --force one two deaf cold iced early
}

phase_1() {
    # A state on a file system of its own, that is looked at before it is mounted.
    truncate -s 3G /holm.img
    mkfs.ext4 -q /holm.img
    mkdir -p /srv/holm /etc/holm/holm.toml.d /etc/systemd/system/holm{d,-shutdown}.service.d
    echo '/holm.img /srv/holm ext4 loop 0 0' >>/etc/fstab
    cat >/etc/systemd/system/holm-look.service <<'U'
[Unit]
DefaultDependencies=no
RequiresMountsFor=/run
Before=srv-holm.mount
[Service]
Type=oneshot
ExecStart=sh -c 'dumpe2fs -h /holm.img >/run/holm-look'
[Install]
RequiredBy=srv-holm.mount
U
    for unit in holmd holm-shutdown; do printf '[Unit]\nRequiresMountsFor=/srv/holm\n' >"/etc/systemd/system/$unit.service.d/storage.conf"; done
    printf '[storage]\ndirectory = "/srv/holm/state"\nprefix = "srv"\n' >/etc/holm/holm.toml.d/storage.toml
    systemctl daemon-reload
    systemctl enable -q holm-look.service
    systemctl start srv-holm.mount
    systemctl stop holmd.service
    # The pool that it had until now is nobody's from here on.
    dmsetup ls --target thin | awk '/^holm-/ { print $1 }' | xargs -r -n 1 dmsetup remove --retry
    dmsetup remove --retry holm-pool
    systemctl start holmd.service
    holmctl image import /host/images/busybox.tar --name busybox >/dev/null
    begin
}
phase_2() {
    ended /host/console.1
    journalctl -b -1 --no-pager -o cat -u holmd.service >/tmp/holmd
    grep -q 'stopping all containers' /tmp/holmd || fail "holmd does not say that it stops all containers: $(cat /tmp/holmd)"
    assert_eq "" "$(journalctl -b -1 --no-pager -o cat -p warning -t holmd)" "warnings of holmd"
    begin
    note "holmd is killed, and stays dead"
    mkdir -p /run/systemd/system/holmd.service.d
    printf '[Service]\nRestart=no\n' >/run/systemd/system/holmd.service.d/dead.conf
    systemctl daemon-reload
    systemctl kill -s KILL holmd.service
    dead() { systemctl is-failed -q holmd.service; }; eventually 5 dead
}
phase_3() {
    ended /host/console.2
    journalctl -b -1 --no-pager -o cat -u holm-shutdown.service | grep -q 'No daemon has stopped the containers' || fail "who stopped them?"
    begin
    note "the bus is killed, and stays dead"
    mkdir -p /run/systemd/system/dbus.service.d /run/systemd/system/dbus.socket.d
    systemctl stop dbus.socket || true
    systemctl kill -s KILL dbus.service || true
}
phase_4() {
    ended /host/console.3
}
