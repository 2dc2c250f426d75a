#!/bin/bash
# guest: shared
# timeout: 120
# Checks of health run by holmd: the word for it, what is done about it, readiness, a check that hangs, a frozen container, a restart of holmd.

health() { holmctl show "$1" -p Health --value; }
state() { holmctl show "$1" -p State --value; }
check_of() { busctl --json=short call org.holm1 "/org/holm1/container/$1" org.holm1.Container GetHealth; }

# Healthy, unhealthy, healthy again; told on the bus, in status and in the journal. No unit is left by any check.
holmctl run -d --name well --health-cmd 'cat /state; test -e /ok' --health-interval 0.3 --health-retries 2 busybox sleep 1000 >/dev/null
assert_eq starting "$(health well)" "at the start"
holmctl events >/tmp/events &
events=$!
holmctl exec well sh -c 'echo fine >/state; touch /ok'
now() { health well; }; eventually_eq 10 healthy now
assert_has "$(check_of well)" '"Output":{"type":"s","data":"fine"}' "what the check wrote"
holmctl exec well sh -c 'echo broken >/state; rm /ok'
eventually_eq 10 unhealthy now
assert_match "$(holmctl status well)" 'Health: unhealthy \(last check status 1, .* failed in a row\): broken' "status"
assert_eq running "$(state well)" "nothing is done about it"
journalctl -b -q -o json MESSAGE_ID=3c6e0b8a9c15471e8a2d5c90f7b1d4e6 | grep -q '"CONTAINER":"well"' || fail "no entry says that it is unhealthy"
holmctl exec well touch /ok
eventually_eq 10 healthy now
kill "$events"; wait "$events" || true
assert_eq "healthy unhealthy healthy" "$(sed -n 's/.*container well health health=//p' /tmp/events | tr '\n' ' ' | sed 's/ $//')" "events"

# A frozen one is not checked; over a restart of holmd the word stays and the checks go on.
holmctl freeze well
checks() { check_of well | sed 's/.*"Checks":{"type":"u","data":\([0-9]*\)}.*/\1/'; }
before=$(checks)
sleep 1.5
test $(($(checks) - before)) -le 1 || fail "$(checks) checks instead of $before while it was frozen"
assert_eq healthy "$(health well)" "while it is frozen"
holmctl thaw well
systemctl restart holmd.service
assert_eq healthy "$(health well)" "after a restart of holmd"
holmctl exec well rm /ok
eventually_eq 10 unhealthy now
holmctl rm -f well

# A check that hangs, with a child that ignores signals: killed as a whole at its time, and never more than one of them.
holmctl run -d --name hangs --health-cmd 'trap "" TERM; sleep 1234 & sleep 1234' --health-interval 0.2 --health-timeout 1 --health-retries 2 busybox sleep 1000 >/dev/null
now() { health hangs; }; eventually_eq 15 unhealthy now
few() { [ "$(holmctl exec hangs ps | grep -c '[s]leep 1234$')" -le 2 ]; }
always 3 few
assert_has "$(check_of hangs)" 'took longer than 1s and was killed' "what is said of it"
systemctl kill -s KILL holmd.service
eventually 20 busctl status org.holm1
eventually 10 holmctl exec hangs true
always 3 few
holmctl rm -f hangs

# What is done about it.
for action in kill stop restart; do
    holmctl run -d --name "$action" --health-cmd 'test -e /ok' --health-interval 0.2 --health-retries 1 --health-on-failure "$action" \
        busybox sh -c 'trap "exit 0" TERM; touch /ok; while :; do sleep 0.1; done' >/dev/null
    now() { health "$action"; }; eventually_eq 10 healthy now
    holmctl exec "$action" rm /ok
    case $action in
        kill) now() { state kill; }; eventually_eq 10 failed now; assert_eq signal "$(holmctl show kill -p Result --value)" "Result" ;;
        stop) now() { state stop; }; eventually_eq 10 stopped now ;;
        restart)
            now() { holmctl show restart -p RestartCount --value; }; eventually_eq 10 1 now
            now() { health restart; }; eventually_eq 10 healthy now
            ;;
    esac
    holmctl rm -f "$action"
done

# Ready when healthy: the start is done when the check passes, and fails when it never does.
start=$EPOCHREALTIME
holmctl run -d --name ready --ready healthy --health-cmd 'test -e /ok' --health-interval 30 busybox sh -c 'sleep 1; touch /ok; sleep 1000' >/dev/null
took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print int((b - a) * 1000) }')
note "a start that is ready after 1 s took $took ms, with an interval of 30 s"
test "$took" -ge 1000 -a "$took" -lt 10000 || fail "ready after $took ms"
assert_eq running/healthy "$(state ready)/$(health ready)" "when the start is done"
holmctl rm -f ready
rc=0; holmctl run -d --name never --ready healthy --health-cmd 'echo no answer; false' --health-interval 0.2 --health-retries 2 busybox sleep 1000 >/tmp/out 2>&1 || rc=$?
assert_eq 125 "$rc" "the status of a start that never becomes ready"
assert_has "$(cat /tmp/out)" "no answer" "what is said of it"
assert_eq failed "$(state never)" "the state after it"
holmctl rm never
refute holmctl run -d --ready healthy busybox sleep 1000 2>/dev/null
assert_eq '' "$(systemctl list-units --failed --no-legend 'holm-*')" "failed units"
