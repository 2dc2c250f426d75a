#!/bin/bash
# guest: own
# timeout: 300
# What is lost when something of the system goes: nothing. Each event meets containers in every state at once: one that runs, one that is frozen, one
# that is being stopped, one that somebody entered, some that are being started, and an image on its way in. The table is printed at the end.

show() { holmctl show "$1" -p "$2" --value 2>/dev/null; }
leader() { show "$1" Leader; }
bus() { holmctl list >/dev/null 2>&1; }
table=/run/survival
: >"$table"
# said CELL : a cell of the table that is as it has to be.
cell() { printf '%s\t%s\n' "$1" "$2" >>"$table"; }

# Counts, and writes what it counted to its output too: a line missing there is a line lost.
counter='i=0; while :; do echo "line $((i = i + 1))"; sleep 0.1; done'
holmctl run -d --name runs busybox sh -c "$counter" >/dev/null
holmctl run -d --name cold busybox sh -c 'while :; do sleep 0.1; done' >/dev/null
holmctl freeze cold
runs=$(leader runs) cold=$(leader cold)
for n in 1 2 3 4; do holmctl create --name "start-$n" busybox sleep 1000 >/dev/null; done

# before NAME : everything under way.
before() {
    holmctl run -d --name ends --stop-timeout 30 busybox sh -c 'trap "sleep 3; exit 7" TERM; echo up >/up; while :; do sleep 0.05; done' >/dev/null
    eventually 10 holmctl exec ends test -e /up
    holmctl stop ends >/dev/null 2>&1 &
    stopper=$!
    holmctl exec runs sh -c 'for i in 1 2 3 4 5 6 7 8; do echo "exec $i"; sleep 0.5; done; exit 9' >/run/exec.out 2>/run/exec.err &
    entered=$!
    stopping() { [ "$(show ends State)" = stopping ]; }; eventually 10 stopping
    ends=$(leader ends)
    execs() { [ -s /run/exec.out ]; }; eventually 10 execs
    holmctl image import /host/images/debian.oci.tar --name "way-$1" >/run/import.out 2>&1 &
    importer=$!
    starters=()
    for n in 1 2 3 4; do
        holmctl start "start-$n" >"/run/start-$n.out" 2>&1 &
        starters+=($!)
    done
}

# after NAME : what has become of it.
after() {
    local event=$1 rc n told state
    eventually 30 bus
    assert_eq "$runs running" "$(leader runs) $(show runs State)" "$event: the one that runs"
    cell "$event" running=ok
    assert_eq "$cold frozen" "$(leader cold) $(show cold State)" "$event: the one that is frozen"
    cell "$event" frozen=ok
    # The one that is being stopped: by its own time, and with its own status.
    ended() { case $(show ends State) in stopped | failed) ;; *) return 1 ;; esac; }; eventually 20 ended
    assert_eq "7 exit-code stopped" "$(show ends ExitStatus) $(show ends Result) $(show ends State)" "$event: the one that was being stopped"
    wait "$stopper" || true
    cell "$event" stopping=ok
    holmctl rm ends
    rc=0
    wait "$entered" || rc=$?
    assert_eq "9 8" "$rc $(wc -l </run/exec.out)" "$event: the process that entered, and its output: $(cat /run/exec.err)"
    cell "$event" entered=ok
    # A start is done, or its caller is told that it is not; half of one is neither.
    told=0
    for n in 1 2 3 4; do
        rc=0
        wait "${starters[n - 1]}" || rc=$?
        state=$(show "start-$n" State)
        if [ "$rc" -eq 0 ]; then
            assert_eq running "$state" "$event: start-$n, whose caller was told that it runs"
        else
            told=$((told + 1))
            case $state in running | created | stopped | failed) ;; *) fail "$event: start-$n is $state after: $(cat "/run/start-$n.out")" ;; esac
            [ "$state" = running ] || holmctl start "start-$n"
        fi
        holmctl exec "start-$n" true
        holmctl stop --time 0 "start-$n"
    done
    cell "$event" "starting=$([ "$told" -eq 0 ] && echo ok || echo "ok, $told of 4 told to repeat")"
    rc=0
    wait "$importer" || rc=$?
    # Its client begins anew, except without its own connection.
    [ "$rc" -eq 0 ] || [ "$event" = dbus-kill ] || fail "$event: import: $(cat /run/import.out)"
    if [ "$rc" -eq 0 ]; then
        cell "$event" import=ok
    else
        refute holmctl image inspect "way-$event" >/dev/null 2>&1
        holmctl image import /host/images/debian.oci.tar --name "way-$event" >/dev/null
        cell "$event" "import=ok, told to repeat"
    fi
    holmctl image rm "way-$event" >/dev/null
    # Nothing of what was cut short is left.
    assert_eq "cold runs start-1 start-2 start-3 start-4" "$(holmctl list --all --no-legend | awk '{ print $1 }' | sort | xargs)" "$event: containers"
    only() { [ "$(systemctl list-units --plain --no-legend --state=active 'holm-*.scope' | awk '{ print $1 }' | xargs)" = "holm-cold.scope holm-runs.scope" ]; }; eventually 10 only
    eventually 15 sh -c 'machinectl list --no-legend | grep -q "^runs "'
    # From what is written to what was counted: no line is missing.
    gaps=$(holmctl logs runs | awk '/^line / { if (last && $2 != last + 1) print last, $2; last = $2 }')
    assert_eq "" "$gaps" "$event: lines missing in the output"
    cell "$event" output=ok
    systemctl reset-failed holmd.service 2>/dev/null || true
}

event() {
    local name=$1
    shift
    before "$name"
    "$@"
    after "$name"
}
replace() {
    cp /usr/bin/holmd /usr/bin/holmd.new
    mv /usr/bin/holmd.new /usr/bin/holmd
    systemctl restart holmd.service
}
event holmd-kill systemctl kill -s KILL holmd.service
event holmd-restart systemctl restart holmd.service
event holmd-replaced replace
event dbus-kill systemctl kill -s KILL dbus.service
event journald systemctl restart systemd-journald.service
event machined systemctl restart systemd-machined.service
event udevd systemctl restart systemd-udevd.service
event reexec systemctl daemon-reexec

awk -F '\t' '{ if ($1 != name) { if (name) print line; name = $1; line = sprintf("%-15s", name) } line = line " " $2 ";" } END { print line }' "$table" | tee /host/survival 2>/dev/null || cat "$table"
holmctl thaw cold
holmctl stop --time 0 runs cold
holmctl rm runs cold start-1 start-2 start-3 start-4
