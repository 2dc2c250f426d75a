#!/bin/bash
# guest: shared
# What people do first: run something, and get its output and its exit status.

status_of() { set +e; "$@" >/tmp/out 2>/tmp/err </dev/null; local rc=$?; set -e; echo "$rc"; }

assert_eq 0 "$(status_of holmctl run --rm busybox true)" "exit status of true"
assert_eq 42 "$(status_of holmctl run --rm busybox sh -c 'exit 42')" "exit status 42"
# Process 1 cannot kill itself (pid_namespaces(7)), its child can.
assert_eq 137 "$(status_of holmctl run --rm --init busybox sh -c 'kill -9 $$')" "killed by signal 9"
assert_eq 127 "$(status_of holmctl run --rm busybox no-such-command)" "command not found"
assert_eq 126 "$(status_of holmctl run --rm busybox /etc/passwd)" "command that cannot be run"
assert_eq 125 "$(status_of holmctl run --rm no-such-image true)" "image that is not there"
grep -q 'holmctl image import' /tmp/err || fail "a missing image should say what to do: $(cat /tmp/err)"

holmctl run --rm busybox sh -c 'echo out; echo err >&2' >/tmp/out 2>/tmp/err </dev/null
assert_eq out "$(cat /tmp/out)" "standard output"
assert_eq err "$(cat /tmp/err)" "standard error"
assert_eq hello "$(echo hello | holmctl run --rm -i busybox cat)" "standard input with -i"
assert_eq "" "$(echo hello | holmctl run --rm busybox cat)" "no standard input without -i"

# A megabyte through pipes, unharmed.
sum=$(head -c 1048576 /dev/urandom | tee /tmp/blob | sha256sum)
assert_eq "$sum" "$(holmctl run --rm -i busybox cat </tmp/blob | sha256sum)" "a megabyte through cat"

assert_eq "hello world" "$(holmctl run --rm -e A=hello -e B=world busybox sh -c 'echo $A $B')" "environment"
assert_eq /tmp "$(holmctl run --rm -w /tmp busybox pwd)" "working directory"
assert_eq box "$(holmctl run --rm --hostname box busybox hostname)" "host name"
assert_eq 1000:1000 "$(holmctl run --rm --user 1000:1000 busybox sh -c 'echo $(id -u):$(id -g)')" "user"
assert_eq 1 "$(holmctl run --rm busybox sh -c 'echo $$')" "the payload is PID 1"
assert_eq 12 "$(holmctl run --rm debian cat /etc/debian_version | cut -d. -f1)" "the Debian image"
mkdir -p /tmp/vol; echo from-host >/tmp/vol/file
assert_eq from-host "$(holmctl run --rm -v /tmp/vol:/data:ro busybox cat /data/file)" "bind mount"
assert_eq 1 "$(status_of holmctl run --rm -v /tmp/vol:/data:ro busybox touch /data/x)" "a read-only bind mount"
holmctl run --rm -v /tmp/vol:/data busybox touch /data/new
test -e /tmp/vol/new || fail "a bind mount should be writable"
assert_eq 1 "$(status_of holmctl run --rm --read-only busybox touch /x)" "a read-only root"

assert_eq "" "$(holmctl list --all --no-legend)" "nothing is left after --rm"

# The small init waits for signals in a way that cannot be seen from outside. It takes the stop signal all the same, and hands it on once.
holmctl run -d --init --stop-timeout 20 --name handed busybox \
    sh -c 'n=0; trap "n=\$((n + 1))" TERM; echo up; while [ $n = 0 ]; do sleep 0.05; done; sleep 1; exit $n' >/dev/null
up() { holmctl logs handed | grep -q up; }
eventually 5 up
holmctl stop handed
assert_eq "1 exit-code" "$(holmctl show handed -p ExitStatus --value) $(holmctl show handed -p Result --value)" "how often it was asked"
holmctl rm handed
