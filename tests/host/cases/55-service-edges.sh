#!/bin/bash
# guest: own
# timeout: 300
# `holmctl run` in a service as people misuse it: storms, stops at bad moments, all that a payload can say, input from anywhere, a start that never ends.

units=/run/systemd/system
property() { systemctl show -p "$2" --value "$1"; }
state() { property "$1" ActiveState; }
shows() { [ "$(holmctl show "$1" -p State --value 2>/dev/null)" = "$2" ]; }
rests() { case $(state "$1") in inactive | failed) ;; *) return 1 ;; esac; }
free() { ! holmctl show "$1" >/dev/null 2>&1; }
unit() {
    local name=$1
    shift
    printf '%s\n' '[Unit]' 'Wants=holmd.service' 'After=holmd.service' 'StartLimitIntervalSec=0' '[Service]' "$@" >"$units/$name.service"
    systemctl daemon-reload
}
end() { systemctl start "$1"; eventually 20 rests "$1"; echo "$(property "$1" Result) $(property "$1" ExecMainCode) $(property "$1" ExecMainStatus)"; systemctl reset-failed "$1" 2>/dev/null || true; }
run="ExecStart=/usr/bin/holmctl run --rm"
forever="while :; do sleep 0.1; done"
mkdir -p /tmp/log
chmod 777 /tmp/log
cat >/tmp/say.sh <<'S'
export PATH=/usr/bin:/bin
say() { python3 -c 'import os, socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), os.environ["NOTIFY_SOCKET"])' "$1"; }
S
debian="-v /usr:/usr:ro -v /lib64:/lib64:ro -v /tmp/say.sh:/say.sh:ro -v /tmp/payload.sh:/payload.sh:ro -v /tmp/log:/log debian sh /payload.sh"
payload() { { echo '. /say.sh'; cat; } >/tmp/payload.sh; }

# ---- every status, and what a signal makes of it
for code in 1 77 125 126 127 128 143 255; do
    unit code "$run --name code busybox sh -c 'exit $code'"
    assert_match "$(end code)" " 1 $code\$" "status $code"
done
for signal in ABRT:134 KILL:137 USR1:138 SEGV:139 TERM:143; do
    unit code "$run --name code --init busybox sh -c 'kill -${signal%:*} \$\$\$\$'"
    assert_eq "exit-code 1 ${signal#*:}" "$(end code)" "ended by ${signal%:*}"
done

# ---- a stop of one with --init takes no longer than it needs
holmctl run -d --name init --init busybox sleep 1000 >/dev/null
start=$EPOCHREALTIME
holmctl stop init
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a < 5) }' || fail "killed after its timeout: $start $EPOCHREALTIME"
assert_eq "143" "$(holmctl show init -p ExitStatus --value)" "asked"
holmctl rm init

# ---- ready when the payload says so, also where it ends before: success is no readiness
unit short 'Type=notify' "$run --name short busybox true"
systemctl start short
unit short 'Type=notify' "$run --name short --ready notify busybox true"
refute systemctl start short
assert_eq protocol "$(property short Result)" "it never said READY=1"
systemctl reset-failed short

# ---- a start that never is one: of nobody after its own time, of a unit after the unit's
eventually 10 free short
start=$EPOCHREALTIME
assert_status 125 holmctl run -d --name mute --ready notify --start-timeout 2 --init busybox sleep 1000 2>/tmp/mute
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a >= 2 && b - a < 8) }' || fail "not its time"
assert_has "$(cat /tmp/mute)" "not ready in time" "why"
assert_eq "failed timeout" "$(holmctl show mute -p State --value) $(holmctl show mute -p Result --value)" "what is left"
assert_status 125 holmctl start mute 2>/dev/null
holmctl rm mute
assert_has "$(holmctl run -d --start-timeout 5 busybox true 2>&1 || true)" "needs no time to start" "not with exec"
payload <<'S'
for i in 1 2 3; do say EXTEND_TIMEOUT_USEC=20000000; sleep 2; done
say READY=1
sleep 1000
S
# shellcheck disable=SC2086
holmctl run -d --name late --ready notify --start-timeout 5 --stop-timeout 1 $debian >/dev/null
shows late running || fail "asked for more time, and did not get it"
holmctl rm --force late
unit late 'Type=notify' 'TimeoutStartSec=5' "$run --name late --ready notify --stop-timeout 1 $debian"
systemctl start late
systemctl stop late
eventually 10 free late
unit mute 'Type=notify' 'TimeoutStartSec=2' "$run --name mute --ready notify --init busybox sleep 1000"
refute systemctl start mute
assert_eq timeout "$(property mute Result)" "the unit's time"
eventually 15 free mute
systemctl reset-failed mute

# ---- all that it may say
payload <<'S'
trap 'say STOPPING=1; touch /log/stopping; while [ -e /log/hold ]; do sleep 0.1; done; exit 0' TERM
trap 'say "RELOADING=1
MONOTONIC_USEC=$(python3 -c "import time; print(int(time.monotonic() * 1000000))")"; touch /log/reloading; while [ -e /log/hold ]; do sleep 0.1; done; say READY=1' HUP
say "READY=1
STATUS=up
ERRNO=5
MAINPID=1
NOTIFYACCESS=all"
while :; do sleep 0.1; done
S
rm -f /tmp/log/*
unit words 'Type=notify' 'NotifyAccess=main' "$run --name words --ready notify $debian"
systemctl start words
assert_eq "up 5 main" "$(property words StatusText) $(property words StatusErrno) $(property words NotifyAccess)" "relayed, but for what is ours"
touch /tmp/log/hold
systemctl kill --kill-whom=main -s HUP words
eventually_eq 10 reloading state words
rm /tmp/log/hold
eventually_eq 10 active state words
if [ "$(systemctl --version | awk 'NR == 1 { print $2 + 0 }')" -ge 253 ]; then
    unit words 'Type=notify-reload' "$run --name words --ready notify $debian"
    systemctl restart words
    rm -f /tmp/log/reloading
    systemctl reload words
    test -e /tmp/log/reloading || fail "systemctl reload came back before it was"
fi

# ---- a stop by systemd is shown by holmd
touch /tmp/log/hold
systemctl stop --no-block words
eventually 10 test -e /tmp/log/stopping
eventually 5 shows words stopping
rm /tmp/log/hold
eventually 10 rests words
assert_eq success "$(property words Result)" "a good end"
eventually 10 free words

# ---- a start while it still stops
unit slow "$run --name slow --init -v /tmp/log:/log busybox sh -c 'trap \"sleep 2; echo ended >>/log/slow; exit 0\" TERM; echo began >>/log/slow; $forever'"
systemctl start slow
eventually 10 grep -q began /tmp/log/slow
systemctl stop --no-block slow
systemctl restart slow
eventually_eq 10 "began ended began" xargs -a /tmp/log/slow
eventually 5 shows slow running
systemctl kill --kill-whom=main slow
systemctl kill --kill-whom=main slow
eventually 15 rests slow
assert_eq "began ended began ended" "$(xargs -a /tmp/log/slow)" "asked once, however often holmctl is"

# ---- a stop before holmd has answered at all, which it does not need
unit early "$run --name early busybox sleep 1000"
holmd=$(property holmd MainPID)
kill -STOP "$holmd"
systemctl start early
sleep 0.5
start=$EPOCHREALTIME
systemctl stop early
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a < 5) }' || fail "it waited for holmd: $start $EPOCHREALTIME"
assert_eq "inactive success" "$(state early) $(property early Result)" "a good end"
kill -CONT "$holmd"
systemctl start early
eventually 10 shows early running
systemctl stop early
eventually 15 free early

# ---- storms
unit storm 'Restart=on-failure' 'RestartSec=0' "$run --name storm -v /tmp/log:/log busybox sh -c 'echo x >>/log/storm; test \$\$(wc -l </log/storm) -gt 10'"
systemctl start storm
eventually 60 rests storm
assert_eq 11 "$(wc -l </tmp/log/storm)" "each ran, none in the way of the next"
unit killed 'Restart=always' 'RestartSec=0' "$run --replace --name killed busybox sh -c 'trap \"\" TERM; $forever'"
systemctl start killed
for _ in 1 2 3 4; do
    eventually 20 shows killed running
    systemctl kill --kill-whom=main -s KILL killed
    sleep 0.2
done
eventually 20 shows killed running
systemctl stop killed
eventually 15 free killed

# Without --replace too: its last run is on its way out.
unit left 'Restart=always' 'RestartSec=0' "$run --name left --init --stop-timeout 1 busybox sh -c 'trap \"\" TERM; $forever'"
systemctl start left
for _ in 1 2; do
    eventually 20 shows left running
    sleep 0.3
    systemctl kill --kill-whom=main -s KILL left
    eventually 5 shows left stopping
done
eventually 20 shows left running
assert_eq 2 "$(property left NRestarts)" "one start each"
systemctl stop left
eventually 15 free left

# ---- input from anywhere
echo "input $RANDOM" >/tmp/input
unit in 'StandardInput=file:/tmp/input' "$run -i --name in -v /tmp/log:/log busybox sh -c 'cat >/log/in'"
assert_match "$(end in)" "^success" "a file"
cmp /tmp/input /tmp/log/in
printf '%s\n' '[Socket]' 'ListenStream=127.0.0.1:8077' 'Accept=yes' >"$units/each.socket"
printf '%s\n' '[Service]' 'StandardInput=socket' "$run -i busybox sh -c 'read line; echo you said \$\$line'" >"$units/each@.service"
systemctl daemon-reload
systemctl start each.socket
for i in 1 2 3; do
    assert_eq "you said $i" "$(python3 -c '
import socket, sys
connection = socket.create_connection(("127.0.0.1", 8077), timeout=30)
connection.sendall(sys.argv[1].encode() + b"\n")
print(b"".join(iter(lambda: connection.recv(100), b"")).decode(), end="")' "$i")" "a connection each"
done
systemctl stop each.socket

# ---- the end as the unit's own commands see it
unit post "ExecStopPost=/bin/sh -c 'echo \$SERVICE_RESULT \$EXIT_CODE \$EXIT_STATUS >/tmp/log/post; holmctl show post >/dev/null 2>&1 || echo gone >>/tmp/log/post'" "$run --name post busybox sh -c 'exit 9'"
end post >/dev/null
assert_eq "exit-code exited 9 gone" "$(xargs -a /tmp/log/post)" "what ExecStopPost= sees"

# ---- whoever is not root may not
unit nobody 'DynamicUser=yes' "$run --name nobody busybox true"
assert_eq "exit-code 1 125" "$(end nobody)" "a user of nothing"
free nobody || fail "it was made"

# ---- its limits are the container's: the smaller of each
unit limited 'MemoryMax=96M' 'TasksMax=50' 'CPUQuota=150%' "$run --name limited --memory 1G --cpus 0.5 busybox sleep 1000"
systemctl start limited
eventually 10 shows limited running
assert_eq "$((96 << 20)) 50 500ms" "$(property holm-limited.scope MemoryMax) $(property holm-limited.scope TasksMax) $(property holm-limited.scope CPUQuotaPerSecUSec)" "of the scope"
assert_eq 50 "$(cat "/sys/fs/cgroup$(property holm-limited.scope ControlGroup)/pids.max")" "in the kernel"
systemctl stop limited

systemctl reset-failed
eventually 15 sh -c '[ "$(holmctl list --all --no-legend | wc -l)" = 0 ]'
