#!/bin/bash
# guest: reboot
# rounds: 2
# timeout: 60
# Three tiers through real shutdowns, HOLM_ROUNDS of them (make shutdowns N=20): database <- application <- web. The database was started by hand
# (`run -d`), application and web are hand-written services that run `holmctl run`. Each payload writes down when it got its signal and when it ended.
# The order is exact, in turn: with everything in health and a container of nobody that hangs beside them; with holmd dead; with holmd killed a moment
# before; with a web that hangs, whatever becomes of its service's process.

log=/var/log/order
# payload NAME [HANGS] : a payload that takes a third of a second to end, or does not end.
payload() {
    local end='sleep 0.3; say ended; exit 0'
    [ -z "${2-}" ] || end=:
    echo "say() { read -r up rest </proc/uptime; echo $1 \$1 \$up >>/log/order; }; trap 'say TERM; $end' TERM; echo ready >/log/$1; while :; do sleep 0.05; done"
}
# service NAME AFTER [HANGS] : a service by hand.
service() {
    payload "$1" "${3-}" >"$log/$1.sh"
    cat >"/etc/systemd/system/tier-$1.service" <<U
[Unit]
After=$2
[Service]
ExecStart=holmctl run --rm --name $1 --stop-timeout 3 -v $log:/log busybox sh /log/$1.sh
TimeoutStopSec=6
[Install]
WantedBy=multi-user.target
U
}
variant() { echo $((($1 - 1) % 4)); }

begin() {
    local hangs=''
    rm -rf "$log"
    mkdir -p "$log"
    [ "$(variant "$1")" -ne 3 ] || hangs=1
    service app 'holmd.service'
    service web 'holmd.service tier-app.service' "$hangs"
    systemctl daemon-reload
    holmctl run -d --name db -v "$log:/log" busybox sh -c "$(payload db)" >/dev/null
    holmctl run -d --name lone --stop-timeout 3 -v "$log:/log" busybox sh -c "$(payload lone hangs)" >/dev/null
    systemctl start tier-app.service tier-web.service
    for name in db lone app web; do eventually 10 test -e "$log/$name"; done
    for name in app web; do
        assert_has "$(unit_property "holm-$name.scope" Before)" "tier-$name.service" "the order of $name"
        assert_has "$(unit_property "holm-$name.scope" Conflicts)" shutdown.target "the order of $name"
    done
    assert_has " $(unit_property holm-web.scope After) " ' tier-app.service ' "web's container goes before the application"
    assert_eq "" "$(unit_property holm-db.scope Conflicts)" "nobody's container"
    # As the next boot would have it.
    systemctl disable -q tier-app.service tier-web.service 2>/dev/null || true
    case $(variant "$1") in
        1)
            mkdir -p /run/systemd/system/holmd.service.d
            printf '[Service]\nRestart=no\n' >/run/systemd/system/holmd.service.d/dead.conf
            systemctl daemon-reload
            systemctl kill -s KILL holmd.service
            dead() { systemctl is-failed -q holmd.service; }; eventually 5 dead
            ;;
        2) systemctl kill -s KILL holmd.service ;;
    esac
}

# order [NAME…] : what these did, in order, on one line. One that hangs may be asked again: first by its service, then by systemd when that has given up.
order() { awk -v names=" $* " 'index(names, " " $1 " ") && !seen[$1, $2]++ { printf "%s%s %s", n++ ? ", " : "", $1, $2 }' "$log/order"; }
at() { awk -v name="$1" -v what="$2" '$1 == name && $2 == what { print int($3 * 1000); exit }' "$log/order"; }
check() {
    local web='web TERM, web ended' lone db
    [ "$(variant "$1")" -ne 3 ] || web='web TERM'
    sed "s/^/# round $1: /" "$log/order"
    assert_eq "$web, app TERM, app ended, db TERM, db ended" "$(order web app db)" "order in round $1"
    # It hangs for itself: the database, which is nobody's as well, has its signal at the same time and ends long before.
    lone=$(at lone TERM) db=$(at db TERM)
    test $((lone > db ? lone - db : db - lone)) -lt 1000 || fail "lone was asked at $lone ms, db at $db ms"
    [ "$(variant "$1")" -eq 3 ] || test $(($(at db ended) - db)) -lt 2500 || fail "db took $(($(at db ended) - db)) ms"
    assert_eq "0 success" "$(holmctl show db -p ExitStatus --value) $(holmctl show db -p Result --value)" "how db ended"
    assert_eq "137 timeout" "$(holmctl show lone -p ExitStatus --value) $(holmctl show lone -p Result --value)" "how lone ended"
    if [ "$(variant "$1")" -eq 3 ]; then
        test $(($(at app TERM) - $(at web TERM))) -gt 2500 || fail "the application did not wait for web"
    fi
    journalctl -b -1 --no-pager -o short-monotonic >/tmp/before
    refute grep -E 'device-mapper: .*(fail|error)|Buffer I/O|EXT4-fs error|holm-[a-z]*\.(scope|service): .*(timed out|SIGKILL)' /tmp/before
    refute grep -E 'EXT4-fs.*recovery' <(journalctl -b -k --no-pager)
    # --rm: what ended unseen is gone all the same.
    assert_eq "db lone" "$(holmctl list --all --no-legend | awk '{ print $1 }' | sort | xargs)" "containers"
    holmctl rm db lone
}

# round NUMBER : what the boot before has left, and the next set.
round() {
    [ "$1" -eq 1 ] || check "$(($1 - 1))"
    begin "$1"
}
