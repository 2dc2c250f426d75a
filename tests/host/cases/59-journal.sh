#!/bin/bash
# guest: shared
# timeout: 120
# The journal: whose lines these are, standard output and error apart, rates, runs, containers that are gone; the catalogue of Holm's own entries.

entries() { journalctl -b -q --no-pager -o json "$@"; }
fields() { python3 -c 'import json, sys
for line in sys.stdin:
    entry = json.loads(line)
    print(" ".join(entry.get(name, "-") for name in sys.argv[1:]))' "$@"; }

# Every line says whose it is, also that of a process that has ended before journald looked at it.
holmctl run --name tells -d busybox sh -c 'echo to-out; echo to-err >&2; echo "<4>warned"; (echo short-lived &)
    trap "echo after-restarts" USR1; while :; do sleep 0.1; done' >/dev/null
id=$(holmctl show tells -p Id --value)
invocation=$(unit_property holm-tells.scope InvocationID)
lines() { entries "CONTAINER_NAME=tells" | wc -l; }; eventually_eq 10 4 lines
entries CONTAINER_NAME=tells | fields MESSAGE PRIORITY CONTAINER_ID IMAGE_NAME HOLM_RUN _SYSTEMD_UNIT _SYSTEMD_INVOCATION_ID SYSLOG_IDENTIFIER | sort >/tmp/lines
rest="$id busybox 1 holm-tells.scope $invocation tells"
printf '%s\n' "short-lived 6 $rest" "to-err 3 $rest" "to-out 6 $rest" "warned 4 $rest" | sort | diff - /tmp/lines || fail "the fields"
assert_eq to-err "$(holmctl logs -p err tells)" "holmctl logs -p err"
assert_eq 4 "$(holmctl logs -o json tells | wc -l)" "holmctl logs -o json"
holmctl logs -o json -n 1 tells | python3 -c 'import json, sys; assert json.load(sys.stdin)["CONTAINER_NAME"] == "tells"'
assert_eq '' "$(holmctl logs --since +1h tells)" "holmctl logs --since"
assert_eq '' "$(holmctl logs --until=-1h tells)" "holmctl logs --until"
timeout 60 holmctl logs -f -n 0 tells >/tmp/followed &
follower=$!
# Through a restart of journald and of holmd: the payload keeps its stream, and its lines their fields.
systemctl restart systemd-journald holmd
holmctl kill -s USR1 --who leader tells
eventually 20 grep -q '^after-restarts$' /tmp/followed
kill "$follower"; wait "$follower" || true
entries CONTAINER_NAME=tells | fields MESSAGE HOLM_RUN | grep -q '^after-restarts 1$' || fail "the fields after restarts"
holmctl rm -f tells

# Each run by its number; the figures of each.
holmctl create --name runs busybox sh -c 'echo run-of-$(date +%N); echo "$(( $(cat /n 2>/dev/null || echo 0) + 1 ))" >/n; echo number $(cat /n); exit 3' >/dev/null
for number in 1 2 3; do holmctl start runs; holmctl wait runs >/dev/null || true; done
said() { holmctl logs --run "$1" runs | sed -n 's/^number //p'; }
now() { said 3; }; eventually_eq 10 3 now
assert_eq "1 2 3 3 2" "$(said 1) $(said 2) $(said 3) $(said 0) $(said -1)" "holmctl logs --run"
refute holmctl logs --run -7 runs
holmctl runs runs
assert_eq 3 "$(holmctl runs --no-legend runs | wc -l)" "holmctl runs"
holmctl runs --json runs | python3 -c 'import json, sys
runs = json.load(sys.stdin)
assert [run["Run"] for run in runs] == [1, 2, 3], runs
assert all(run["Result"] == "exit-code" and run["ExitStatus"] == 3 and run["EndedUSec"] > run["StartedUSec"] for run in runs), runs
# A run of less than a tick may have cost nothing.
assert sum(run["CPUUsageUSec"] for run in runs) > 0, runs'
systemctl restart holmd
assert_eq 3 "$(holmctl runs --no-legend runs | wc -l)" "holmctl runs after a restart of holmd"

# One that is gone is found by its name, and is the last of that name.
holmctl rm runs
now() { holmctl logs runs | sed -n 's/^number //p' | tr -d '\n'; }; assert_eq 123 "$(now)" "logs of one that is gone"
holmctl run --rm --name runs busybox echo the second of that name >/dev/null
journal_has() { entries "CONTAINER_NAME=runs" | fields MESSAGE | grep -q 'second'; }
holmctl run --rm -d --name runs busybox echo the second of that name >/dev/null
eventually 10 journal_has
assert_eq "the second of that name" "$(holmctl logs runs)" "logs of the last one of a name"
assert_eq 1 "$(holmctl logs --run 0 runs | wc -l)" "its last run"
refute holmctl logs nobody-ever
holmctl run --rm -d --name with-dash busybox echo dashed >/dev/null
now() { holmctl logs with-dash; }; eventually_eq 10 dashed now

# A rate of its own, which journald enforces; and none.
holmctl run -d --name many --log-rate-limit 50/3600 busybox sh -c 'i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; sleep 1000' >/dev/null
sleep 2
few=$(holmctl logs many | wc -l)
note "$few of 3000 lines were taken with a limit of 50"
test "$few" -ge 50 -a "$few" -lt 1000 || fail "$few lines with a limit of 50"
holmctl rm -f many
holmctl run -d --name all --log-rate-limit none busybox sh -c 'i=0; while [ $i -lt 15000 ]; do echo $i; i=$((i+1)); done; sleep 1000' >/dev/null
now() { holmctl logs all | wc -l; }; eventually_eq 40 15000 now
holmctl rm -f all

# What is in /run is ours alone and goes with the containers.
test -e /run/systemd/units/log-extra-fields:holm-all.scope || fail "the fields are forgotten before the last line can be read"
systemctl restart holmd
test ! -e /run/systemd/units/log-extra-fields:holm-all.scope || fail "the fields of a container that is gone stay"

# Entries of Holm's own: a text to each, and its variables filled in.
journalctl --update-catalog
holmctl run -d --name bad busybox sh -c 'exit 9' >/dev/null
refute holmctl run -d --name worse busybox no-such-program 2>/dev/null
now() { holmctl show bad -p State --value; }; eventually_eq 10 failed now
explained() { journalctl -b -q -x --no-pager -u holmd.service "CONTAINER=$1" >/run/explained; grep -q "Subject: $2" /run/explained; }
eventually 10 explained bad 'Container bad started'
eventually 10 explained bad 'Container bad failed'
grep -q 'with result exit-code and status 9' /run/explained || fail "the variables: $(cat /run/explained)"
eventually 10 explained worse 'Container worse could not be started'
holmctl rm bad
holmctl rm worse

# A program without a handler for the stop signal, as process 1: why it takes so long, to who stops it and in the journal of the unit that wants it.
holmctl run -d --name deaf --stop-timeout 1 busybox sleep 1000 >/dev/null
holmctl stop deaf 2>/tmp/said
why="killed after its stop timeout: its first process was never seen to take SIGTERM; with --init"
assert_has "$(cat /tmp/said)" "holmctl: warning: deaf: $why" "what stop says"
assert_has "$(holmctl status deaf || true)" "failed ($why" "status"
explained deaf 'Container deaf was never seen to take its stop signal' || fail "the entry: $(cat /run/explained)"
holmctl rm deaf
printf '%s\n' '[Service]' 'Type=notify' "ExecStart=holmctl run --rm --name deaf --stop-timeout 1 busybox sleep 1000" >/run/systemd/system/deaf.service
systemctl daemon-reload
systemctl start deaf
systemctl restart holmd
systemctl stop deaf
now() { journalctl -b -o cat -u deaf.service | grep -c "^Container deaf is $why\|^Container deaf ended: timeout, signal 9"; }
eventually_eq 10 2 now
assert_eq failed "$(systemctl is-failed deaf.service)" "a service whose container had to be killed"
systemctl reset-failed deaf.service
rm /run/systemd/system/deaf.service
systemctl daemon-reload
