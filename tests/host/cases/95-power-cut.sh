#!/bin/bash
# guest: reboot
# phases: cut cut cut off
# needs: torture
# timeout: 90
# The plug is pulled while containers run, images are imported and everything else happens; then all that was acknowledged is there again, and nothing else.
# `make torture` does the second part many times (it takes /host/images too).

phase_1() {
    holmctl create --name kept busybox sh -c 'exit 4' >/dev/null
    holmctl run -d --name cut --stop-timeout 1 busybox sleep 1000 >/dev/null
    sync
    holmctl image import /host/images/busybox.tar --name half >/dev/null &
    for i in 1 2 3 4 5; do holmctl create --name "storm-$i" busybox true >/dev/null; done
    nap 300
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
    # Removed at once, deleted a moment later.
    deleted() { ! holmctl device list --no-legend | grep container; }; eventually 10 deleted
    ! holmctl image list --no-legend | grep -q '^half ' || holmctl image rm half
    storm 1
}
phase_3() { storm 2; }
phase_4() {
    python3 /host/torture/storm 95 3 --check || fail "see above"
    # Everything that it must notice, it does.
    holmctl create --name w0-probe busybox >/dev/null
    dmsetup message holm-pool 0 "create_thin 600000"
    dmsetup message holm-pool 0 "delete 5000000"
    python3 - <<'PYTHON'
import json
path = "/host/state/state.json"
state = json.load(open(path))
state["there"]["containers"]["w0-probe"] = {"image": "busybox", "tree": {"/never": "written:9"}, "labels": {}}
state["there"]["images"]["w1-gone"] = {}
json.dump(state, open(path, "w"))
PYTHON
    assert_status 1 python3 /host/torture/storm 95 3 --check >/run/check
    for wrong in 'lost: image w1-gone' 'contents: container w0-probe: /never' 'foreign: thin device 600000' 'foreign deleted: thin device 5000000'; do
        grep -q "^WRONG $wrong" /run/check || fail "not noticed: $wrong; $(cat /run/check)"
    done
}

# nap MS : for at most so many milliseconds, by chance.
nap() { sleep "$(printf '%d.%03d' $((RANDOM % $1 / 1000)) $((RANDOM % $1 % 1000)))"; }
# storm CUT : checks, and leaves the storm running for some time.
storm() {
    python3 -u /host/torture/storm 95 "$1" >/run/storm 2>&1 &
    local storm=$!
    begun() { grep -q '^mark storm' /run/storm || ! kill -0 "$storm"; }; eventually 60 begun
    nap 2500
    kill -0 "$storm" || fail "the storm ended: $(cat /run/storm)"
}
