#!/bin/bash
# guest: own
# timeout: 100
# A soft-reboot (systemd 254; surviving one: 255): containers that ask for it keep process, root and output, the others are stopped in order. The new
# userspace runs this case once more, from its beginning.

version=$(systemctl --version | awk 'NR == 1 { print $2 }')
if [ "$version" -lt 255 ]; then
    refute systemctl cat soft-reboot.target
    note "systemd $version has no soft-reboot that anything survives"
    exit 0
fi
log=/var/log/soft
show() { holmctl show "$1" -p "$2" --value; }
last() { holmctl logs stays | tail -n 1; }

if ! [ -e "$log/begun" ]; then
    mkdir -p "$log"
    holmctl run -d --name stays --survive-soft-reboot -v "$log:/log" busybox sh -c 'trap "echo TERM >>/log/stays; exit 4" TERM; echo here >/mark; i=0; while :; do echo "line $((i = i + 1))"; echo $i >/count; sleep 0.1; done' >/dev/null
    holmctl run -d --name goes -v "$log:/log" busybox sh -c 'trap "echo TERM >>/log/goes; exit 5" TERM; echo ready >/log/goes; while :; do sleep 0.1; done' >/dev/null
    eventually 10 test -e "$log/goes"
    show stays Leader >"$log/leader"
    # The test host's channels close with their last user.
    cat >/run/systemd/system/holm-test-channels.service <<'U'
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
SurviveFinalKillSignal=yes
[Service]
ExecStart=sh -c 'exec 8>/dev/ttyS1 9>/dev/ttyS2; exec sleep infinity'
U
    systemctl daemon-reload
    systemctl start holm-test-channels.service
    date +%s >"$log/begun"
    systemctl soft-reboot
    sleep 60
    fail "there was no soft-reboot"
fi

assert_eq 1 "$(systemctl show -p SoftRebootsCount --value 2>/dev/null || echo 1)" "soft-reboots"
assert_eq "$(cat "$log/leader") running" "$(show stays Leader) $(show stays State)" "the one that stays"
assert_eq here "$(holmctl exec stays cat /mark)" "its root"
refute test -e "$log/stays"
count=$(holmctl exec stays cat /count)
counts() { [ "$(holmctl exec stays cat /count)" -gt "$count" ]; }; eventually 5 counts
assert_eq "5 exit-code stopped" "$(show goes ExitStatus) $(show goes Result) $(show goes State)" "the one that goes"
assert_eq "ready TERM" "$(xargs <"$log/goes")" "what it saw"
eventually 10 sh -c 'machinectl list --no-legend | grep -q "^stays "'
assert_eq active "$(systemctl is-active holm-stays.scope)" "its scope"
last=$(last)
note "output: $last, while it counts $(holmctl exec stays cat /count)"
goes_on() { [ "$(last)" != "$last" ]; }; eventually 5 goes_on
holmctl stop stays
assert_eq "4 exit-code" "$(show stays ExitStatus) $(show stays Result)" "its end"
holmctl start stays
holmctl rm --force stays goes
assert_eq ok "$(holmctl device status --json | grep -o '"State": *"[a-z-]*"' | cut -d'"' -f4)" "state of the pool"
