#!/bin/bash
# guest: own
# timeout: 240
# `holmctl run` in any service: its order, slice, stop and end are the service's; sockets and credentials go into the payload; readiness comes out of it.

units=/run/systemd/system
property() { systemctl show -p "$2" --value "$1"; }
state() { property "$1" ActiveState; }
gone() { ! systemctl is-active -q "$1" && ! holmctl show "$2" >/dev/null 2>&1; }
# unit NAME LINE… : a service, with these lines in [Service].
unit() {
    local name=$1
    shift
    printf '%s\n' '[Unit]' 'Wants=holmd.service' 'After=holmd.service' '[Service]' "$@" >"$units/$name.service"
    systemctl daemon-reload
}
run="ExecStart=/usr/bin/holmctl run --rm"
polite="sh -c 'trap \"echo asked >>/log/end; sleep 0.3; echo ended >>/log/end; exit 0\" TERM; echo up; while :; do sleep 0.1; done'"
mkdir -p /tmp/log

# ---- the unit of the caller is the scope's: order, slice, limits above it
cat >"$units/shop.slice" <<'U'
[Slice]
TasksMax=123
U
unit front 'Type=notify' 'Slice=shop.slice' "$run --name front -v /tmp/log:/log busybox ${polite//%/%%}"
systemctl start front
assert_eq active "$(state front)" "started"
assert_eq running "$(holmctl show front -p State --value)" "at once, as Type=notify says"
assert_has " $(property holm-front.scope Before) " " front.service " "stopped after its service"
assert_has " $(property holm-front.scope Conflicts) " " shutdown.target " "by systemd itself"
assert_has " $(property holm-front.scope After) " " holmd.service " "and before the daemon"
assert_eq shop.slice "$(property holm-front.scope Slice)" "the service's slice"
test -d /sys/fs/cgroup/shop.slice/holm-front.scope || fail "not in the slice"

# ---- how small what waits is
pid=$(property front MainPID)
note "holmctl run: $(awk '/^Pss:/ { p = $2 } /^Private_(Clean|Dirty):/ { s += $2 } /^Private_Dirty:/ { d = $2 } END { print "PSS " p " KiB, private " s " KiB, of which dirty " d " KiB" }' "/proc/$pid/smaps_rollup"), $(ls "/proc/$pid/task" | wc -l) thread(s)"

# ---- a stop is the container's stop, and a good end is one
start=$EPOCHREALTIME
systemctl stop front
assert_eq "asked ended" "$(xargs </tmp/log/end)" "it had its time"
assert_eq "inactive success" "$(state front) $(property front Result)" "the end"
eventually 5 gone holm-front.scope front
note "stop: $(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }') s"

# With holmd standing still: the monitor stops it all the same.
rm /tmp/log/end
systemctl start front
holmd=$(property holmd MainPID)
kill -STOP "$holmd"
systemctl stop --no-block front
eventually 5 grep -q ended /tmp/log/end
kill -CONT "$holmd"
eventually 10 gone holm-front.scope front
eventually 10 sh -c '! systemctl is-active -q front'

# One that does not listen is killed after its own timeout, and only then.
unit deaf "$run --name deaf --init --stop-timeout 1 -v /tmp/log:/log busybox sh -c 'trap \"\" TERM; touch /log/deaf; while :; do sleep 0.1; done'"
systemctl start deaf
eventually 10 test -e /tmp/log/deaf
start=$EPOCHREALTIME
systemctl stop deaf
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a >= 1 && b - a < 8) }' || fail "not its timeout: $start $EPOCHREALTIME"
assert_eq "exit-code 137" "$(property deaf Result) $(property deaf ExecMainStatus)" "what the unit says"
eventually 5 gone holm-deaf.scope deaf

# ---- exit status and output are the unit's
unit three "$run --name three busybox sh -c 'echo said by the payload; exit 3'"
systemctl start three
eventually_eq 10 failed state three
assert_eq 3 "$(property three ExecMainStatus)" "exit status"
# Its unit is the scope, or nothing when the writer is gone before journald looks; the identifier is the service's.
eventually 5 sh -c 'journalctl -b -t holmctl -o cat | grep -qx "said by the payload"'
unit says "$run --name says busybox sh -c 'echo said in the unit; trap \"exit 0\" TERM; while :; do sleep 0.1; done'"
systemctl start says
eventually 5 sh -c 'journalctl -b -u says -o cat | grep -qx "said in the unit"'
systemctl stop says

# ---- a stop while holmd is stopped on purpose: systemd starts no holmd before the service has stopped, so nothing may wait for one
unit alone "$run --name alone -v /tmp/log:/log busybox ${polite//%/%%}"
systemctl start alone
eventually 10 holmctl exec alone true
systemctl stop holmd
start=$EPOCHREALTIME
systemctl stop alone
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a < 5) }' || fail "it waited: $start $EPOCHREALTIME"
assert_eq "inactive success 0" "$(state alone) $(property alone Result) $(property alone ExecMainStatus)" "what the unit says"
systemctl start holmd
refute holmctl show alone

# ---- holmctl killed: nothing runs on, and Restart= of the unit starts it anew
unit killed 'Restart=on-failure' 'RestartSec=100ms' "$run --replace --name killed busybox sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'"
systemctl start killed
eventually 10 sh -c 'test "$(holmctl show killed -p State --value)" = running'
first=$(holmctl show killed -p Id --value)
kill -KILL "$(property killed MainPID)"
anew() { [ "$(holmctl show killed -p State --value)" = running ] && [ "$(holmctl show killed -p Id --value)" != "$first" ]; }
eventually 15 anew
printf '[Service]\nRestart=no\n' >"$units/killed.conf" && mkdir -p "$units/killed.service.d" && mv "$units/killed.conf" "$units/killed.service.d/no.conf"
systemctl daemon-reload
kill -KILL "$(property killed MainPID)"
eventually_eq 10 failed state killed
eventually 15 gone holm-killed.scope killed

# By hand nothing of that applies, and it can be turned off.
busctl call org.holm1 /org/holm1 org.holm1.Manager RunContainer 'ssa{sv}' by-hand busybox 2 Command as 2 sleep 1000 WantedBy s '' >/dev/null
eventually 10 sh -c 'test "$(holmctl show by-hand -p State --value)" = running'
assert_eq "" "$(property holm-by-hand.scope Conflicts)" "no order at shutdown"
busctl call org.holm1 /org/holm1 org.holm1.Manager RunContainer 'ssa{sv}' wanted busybox 2 Command as 2 sleep 1000 WantedBy s multi-user.target >/dev/null
eventually 10 sh -c 'test "$(holmctl show wanted -p State --value)" = running'
assert_has " $(property holm-wanted.scope Before) " " multi-user.target " "said on the bus"
refute busctl call org.holm1 /org/holm1 org.holm1.Manager RunContainer 'ssa{sv}' no busybox 1 WantedBy s 'no unit' 2>/tmp/refused
assert_has "$(cat /tmp/refused)" "not the name of a unit" "refused"
holmctl rm --force by-hand wanted

# ---- socket activation: the first request starts the server that answers it
cat >/tmp/server.py <<'P'
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ["LISTEN_PID"]
names = os.environ["LISTEN_FDNAMES"].split(":")
assert os.environ["LISTEN_FDS"] == "2" and sorted(names) == ["other", "web"], names
assert sorted(os.listdir("/proc/self/fd"))[:5] == ["0", "1", "2", "3", "4"] and len(os.listdir("/proc/self/fd")) == 6
listener = socket.socket(fileno=3 + names.index("web"))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nserved by process %d\n" % os.getpid())
    connection.close()
P
cat >/tmp/request.py <<'P'
import socket, time
start = time.monotonic()
connection = socket.create_connection(("127.0.0.1", 8099), timeout=30)
connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = connection.recv(1)
print("%.3f" % (time.monotonic() - start))
while part := connection.recv(4096):
    answer += part
print(answer.decode())
P
printf '%s\n' '[Socket]' 'ListenStream=127.0.0.1:8099' 'FileDescriptorName=web' 'Service=http.service' >"$units/http.socket"
printf '%s\n' '[Socket]' 'ListenStream=/run/http.sock' 'FileDescriptorName=other' 'Service=http.service' >"$units/http-other.socket"
for init in --no-init --init; do
    unit http 'Sockets=http.socket http-other.socket' "$run --name http --stop-signal KILL $init -v /usr:/usr:ro -v /lib64:/lib64:ro -v /tmp/server.py:/server.py:ro debian /usr/bin/python3 /server.py"
    systemctl start http.socket http-other.socket
    assert_eq inactive "$(state http)" "nothing runs yet"
    python3 /tmp/request.py >/tmp/first || { journalctl -b -t holmctl -o cat --no-pager | tail -n 20; fail "no answer"; }
    first=$(sed -n 1p /tmp/first)
    note "time to the first byte of the first request ($init): $first s; of the second: $(python3 /tmp/request.py | sed -n 1p) s"
    assert_has "$(cat /tmp/first)" "served by process $([ $init = --init ] && echo 2 || echo 1)" "the answer"
    systemctl stop http.socket http-other.socket http
    # Killed, as it was to be: no good end to systemd.
    systemctl reset-failed http
    eventually 10 gone holm-http.scope http
done

# ---- what the payload says about itself
cat >/tmp/say.sh <<'S'
say() { python3 -c 'import os, socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), os.environ["NOTIFY_SOCKET"])' "$1"; }
export PATH=/usr/bin:/bin
test "$NOTIFY_SOCKET" = /run/host/notify || exit 20
S
cat >/tmp/ready.sh <<'S'
. /say.sh
trap 'say STOPPING=1; exit 0' TERM
say "STATUS=warming up
MAINPID=1"
while [ ! -e /log/go ]; do sleep 0.1; done
say "READY=1
STATUS=serving"
while :; do [ -e /log/quiet ] || say WATCHDOG=1; sleep 0.3; done
S
debian="-v /usr:/usr:ro -v /lib64:/lib64:ro -v /tmp/say.sh:/say.sh:ro -v /tmp/ready.sh:/ready.sh:ro -v /tmp/log:/log debian"
rm -f /tmp/log/*
unit ready 'Type=notify' 'WatchdogSec=3' "$run --name ready --ready notify $debian sh /ready.sh"
systemctl start --no-block ready
eventually_eq 15 "warming up" property ready StatusText
assert_eq activating "$(state ready)" "not before it says so"
assert_eq "starting warming up" "$(holmctl show ready -p State --value) $(holmctl show ready -p StatusText --value)" "what holmd says"
main=$(property ready MainPID)
systemctl restart holmd
touch /tmp/log/go
eventually_eq 10 active state ready
assert_eq "$main" "$(property ready MainPID)" "holmctl stays the main process"
eventually_eq 10 "running serving" sh -c 'echo "$(holmctl show ready -p State --value) $(holmctl show ready -p StatusText --value)"'
assert_eq serving "$(property ready StatusText)" "the unit's"
always 4 systemctl is-active ready
touch /tmp/log/quiet
eventually_eq 15 watchdog property ready Result
eventually 15 gone holm-ready.scope ready
# Of nobody: the job is the readiness, and an end before it a failure.
rm -f /tmp/log/*
(sleep 2; touch /tmp/log/go) &
start=$EPOCHREALTIME
# shellcheck disable=SC2086
holmctl run -d --name alone --ready notify $debian sh /ready.sh >/dev/null
awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a > 1.5) }' || fail "the job did not wait"
assert_eq running "$(holmctl show alone -p State --value)" "ready"
holmctl rm --force alone
assert_status 125 holmctl run -d --name never --ready notify busybox true 2>/tmp/never
assert_has "$(cat /tmp/never)" "not ready before its end" "why"
holmctl rm never

# ---- credentials: for the payload's user and nobody else, in no record
cat >/tmp/look.sh <<'S'
cd "$CREDENTIALS_DIRECTORY" && test "$PWD" = /run/host/credentials || exit 10
stat -c '%a %u %n' . * >/log/modes
cat key plain >/log/content
touch /run/host/credentials/new 2>/dev/null && exit 11
grep ' /run/host/credentials ' /proc/mounts >/log/mount
exit 0
S
echo "from a file, ten$RANDOM" >/tmp/plain
rm -f /tmp/log/*; chmod 777 /tmp/log
unit secret 'Type=oneshot' 'SetCredential=key:from the service, 9f3b7c' "$run --name secret --user 1234:1234 --credential key --credential plain:/tmp/plain -v /tmp/log:/log -v /tmp/look.sh:/look.sh:ro busybox sh /look.sh"
systemctl start secret || { systemctl status --no-pager secret; fail "secret"; }
assert_eq "500 1234 . 400 1234 key 400 1234 plain" "$(xargs </tmp/log/modes)" "modes and owner"
assert_has "$(cat /tmp/log/content)" "from the service, 9f3b7c" "the service's own"
assert_has "$(cat /tmp/log/content)" "$(cat /tmp/plain)" "the file's"
assert_match "$(cat /tmp/log/mount)" ' ramfs ro,nosuid,nodev,noexec' "where they are"
unit secret "$run --name secret --credential key:/tmp/plain busybox sleep 1000"
systemctl start secret
eventually 10 sh -c 'test "$(holmctl show secret -p State --value)" = running'
refute holmctl exec --user 1234 secret cat /run/host/credentials/key 2>/dev/null
refute grep -rqF -f /tmp/plain /var/lib/holm/containers /run/holm
refute sh -c "busctl introspect org.holm1 /org/holm1/container/secret | grep -qF '$(cat /tmp/plain)'"
refute sh -c "journalctl -b -u holmd | grep -qF '$(cat /tmp/plain)'"
systemctl stop secret
assert_has "$(holmctl run --rm --credential none busybox true 2>&1 || true)" "--credential none: no service gave us one" "asked for in vain"
