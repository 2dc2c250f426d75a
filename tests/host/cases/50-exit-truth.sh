#!/bin/bash
# guest: shared
# The exit status is exact, also when nobody was there to see it.

holmctl run -d --name truth busybox sh -c 'while ! test -e /go; do sleep 0.1; done; exit 42' >/dev/null
leader=$(holmctl show truth -p Leader --value)
systemctl kill -s KILL holmd.service
systemctl stop holmd.service
touch "/proc/$leader/root/go"
eventually 10 sh -c "! test -e /proc/$leader"
systemctl start holmd.service
assert_eq 42 "$(holmctl wait truth || true)" "holmctl wait"
assert_eq 42 "$(holmctl show truth -p ExitStatus --value)" "ExitStatus"
assert_eq exit-code "$(holmctl show truth -p Result --value)" "Result"
holmctl rm truth

# Somebody who waits in the foreground does not notice that holmd was killed.
holmctl run --rm --name waits busybox sh -c 'sleep 3; echo done; exit 7' >/tmp/out </dev/null &
client=$!
now() { holmctl show waits -p State --value 2>/dev/null; }; eventually_eq 10 running now
systemctl kill -s KILL holmd.service
rc=0; wait "$client" || rc=$?
assert_eq 7 "$rc" "exit status through a crash of holmd"
assert_eq done "$(cat /tmp/out)" "output through a crash of holmd"
eventually 20 busctl status org.holm1
now() { holmctl list --all --no-legend | wc -l; }; eventually_eq 10 0 now

# Who ran it finds how it ended.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rc=0; holmctl run --name noted busybox sh -c 'exit 5' </dev/null || rc=$?
    assert_eq "5 5 exit-code" "$rc $(holmctl show noted -p ExitStatus --value) $(holmctl show noted -p Result --value)" "the end, at once"
    rc=0; holmctl start --attach noted </dev/null || rc=$?
    assert_eq "5 5 failed" "$rc $(holmctl show noted -p ExitStatus --value) $(holmctl show noted -p State --value)" "the end of a start, at once"
    holmctl rm noted
done

# Out of memory is told apart.
rc=0; holmctl run --name oom --memory 16M busybox sh -c 'head -c 200m /dev/zero | tail' >/dev/null 2>&1 </dev/null || rc=$?
test "$rc" -ne 0 || fail "nothing was killed for lack of memory"
test "$(holmctl show oom -p OOMKills --value)" -ge 1 || fail "OOMKills"
holmctl rm oom
