#!/bin/bash
# guest: reboot
# phases: cut off
# The plug is pulled while containers run and images are imported; then everything is there again.

phase_1() {
    holmctl create --name kept busybox sh -c 'exit 4' >/dev/null
    holmctl run -d --name cut --stop-timeout 1 busybox sleep 1000 >/dev/null
    sync
    holmctl image import /host/images/busybox.tar --name half >/dev/null &
    for i in 1 2 3 4 5; do holmctl create --name "storm-$i" busybox true >/dev/null; done
    echo $((RANDOM % 300)) | { read -r ms; sleep "0.$(printf %03d "$ms")"; }
}
phase_2() {
    holmctl image list
    assert_eq created "$(holmctl show kept -p State --value)" "a container that was created"
    assert_eq 4 "$(holmctl start kept; holmctl wait kept || true)" "it runs"
    case $(holmctl show cut -p State --value) in failed | stopped) ;; *) fail "state of one that was cut: $(holmctl show cut -p State --value)";; esac
    assert_eq lost "$(holmctl show cut -p Result --value)" "Result of one that was cut"
    for i in 1 2 3 4 5; do assert_eq 0 "$(holmctl start "storm-$i"; holmctl wait "storm-$i" >/dev/null; echo $?)" "storm-$i"; done
    holmctl start cut; holmctl exec cut true; holmctl stop cut
    for name in $(holmctl list --all --no-legend | awk '{print $1}'); do holmctl rm "$name"; done
    ! holmctl device list --no-legend | grep container || fail "devices are left"
}
