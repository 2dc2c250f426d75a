#!/bin/bash
# guest: reboot
# rounds: 2
# timeout: 90
# Three tiers through real shutdowns, HOLM_ROUNDS of them (make shutdowns N=20): database <- application <- web. The database was started by hand
# (`run -d`), the application is a hand-written service that runs `holmctl run`, the web a file in /etc/holm/units. Each payload writes down when it got its
# signal and when it ended. The order is exact, in turn: with everything in health and a container of nobody that hangs beside them; with holmd dead; with
# holmd killed a moment before; with a web that hangs, whatever becomes of its service's process.
# Beside them in the same boots, only shown: the same graph in scopes with default dependencies, and, in the first four rounds, since it takes its time here,
# under podman where the guest has one with Quadlet (the variant bench; it imports /host/images/busybox.rootfs.tar). /host/told gets a table.

log=/var/log/order
quadlet=/usr/lib/systemd/system-generators/podman-system-generator
variants=("healthy" "holmd dead" "holmd killed" "web hangs")
has_podman() { [ -x "$quadlet" ] && [ "$1" -le ${#variants[@]} ]; }
variant() { echo $((($1 - 1) % 4)); }
uptime_ms() { local up rest; read -r up rest </proc/uptime; echo "${up/./}0"; }

# payload GRAPH NAME [HANGS] : a script that takes a third of a second to end, or does not end. Its argument is where it writes.
payload() {
    mkdir -p "$log/$1"
    cat >"$log/$1/$2.sh" <<P
say() { read -r up rest </proc/uptime; echo $2 \$1 \$up >>\$dir/order; }
# Who is asked again goes on as it was.
stop() { say TERM; [ -z '${3-}' ] || return; trap '' TERM; sleep 0.3; say ended; exit 0; }
dir=\$1
trap stop TERM
echo ready >\$dir/$2
while :; do sleep 0.05; done
P
}
payloads() { for name in db app; do payload "$1" "$name"; done; payload "$1" web "${2-}"; }
# service NAME AFTER COMMAND… : one by hand.
service() {
    printf '[Unit]\nAfter=%s\n[Service]\nExecStart=%s\nTimeoutStopSec=6\n' "$2" "${*:3}" >"/etc/systemd/system/$1.service"
}

# holm [HANGS] : the graph in question.
holm() {
    payloads holm "${1-}"
    payload holm lone hangs
    service tier-app holmd.service "holmctl run --rm --name app --stop-timeout 3 -v $log/holm:/log busybox sh /log/app.sh /log"
    mkdir -p /etc/holm/units
    cat >/etc/holm/units/web.container <<U
[Unit]
After=tier-app.service
[Container]
Image=busybox
ContainerName=web
Volume=$log/holm:/log
Exec=sh /log/web.sh /log
StopTimeout=3
U
    systemctl daemon-reload
    holmctl run -d --name db -v "$log/holm:/log" busybox sh /log/db.sh /log >/dev/null
    holmctl run -d --name lone --stop-timeout 3 -v "$log/holm:/log" busybox sh /log/lone.sh /log >/dev/null
    systemctl start tier-app.service web.service
    for name in db lone app web; do eventually 10 test -e "$log/holm/$name"; done
    assert_has "$(unit_property holm-app.scope Before)" tier-app.service "the order of app"
    assert_has "$(unit_property holm-web.scope Before)" web.service "the order of web"
    for name in app web; do assert_has "$(unit_property "holm-$name.scope" Conflicts)" shutdown.target "the order of $name"; done
    assert_has " $(unit_property holm-web.scope After) " ' tier-app.service ' "web's container goes before the application"
    assert_eq "" "$(unit_property holm-db.scope Conflicts)" "nobody's container"
}

# scopes [HANGS] : clients in services, payloads in scopes as systemd-run and others make them.
scopes() {
    payloads scopes "${1-}"
    cat >"$log/scopes/client.sh" <<P
trap 'kill \$!' TERM
systemd-run --scope --quiet --unit=plain-\$1 -p TimeoutStopSec=3 sh $log/scopes/\$1.sh $log/scopes &
wait
wait
P
    service plain-app network.target "/bin/sh $log/scopes/client.sh app"
    service plain-web plain-app.service "/bin/sh $log/scopes/client.sh web"
    systemctl daemon-reload
    setsid systemd-run --scope --quiet --unit=plain-db sh "$log/scopes/db.sh" "$log/scopes" </dev/null >/dev/null 2>&1 &
    systemctl start plain-app.service plain-web.service
    for name in db app web; do eventually 10 test -e "$log/scopes/$name"; done
}

# podmans [HANGS] : its `run -d`, its `run` in a service by hand, and a Quadlet file.
podmans() {
    payloads podman "${1-}"
    mkdir -p /etc/containers/systemd
    [ -e /etc/containers/policy.json ] || echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
    podman image exists localhost/busybox || podman import -q /host/images/busybox.rootfs.tar localhost/busybox:latest
    local run="/usr/bin/podman run --replace --network none --stop-timeout 3 -v $log/podman:/log"
    service quadlet-app network.target "$run --rm --name app localhost/busybox sh /log/app.sh /log"
    cat >/etc/containers/systemd/quadlet-web.container <<U
[Unit]
After=quadlet-app.service
[Container]
Image=localhost/busybox
ContainerName=web
Network=none
Volume=$log/podman:/log
Exec=sh /log/web.sh /log
StopTimeout=3
U
    systemctl daemon-reload
    $run -d --name db localhost/busybox sh /log/db.sh /log
    systemctl start quadlet-app.service quadlet-web.service
    for name in db app web; do eventually 20 test -e "$log/podman/$name"; done
}

begin() {
    local hangs=''
    rm -rf "$log"
    mkdir -p "$log"
    [ "$(variant "$1")" -ne 3 ] || hangs=1
    holm "$hangs"
    # What becomes of the others decides nothing.
    (scopes "$hangs") || note "the graph in scopes has not started"
    ! has_podman "$1" || (podmans "$hangs") || note "the graph of podman has not started"
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
    uptime_ms >"$log/asked"
}

# order GRAPH [NAME…] : what these did, in order, on one line. One that hangs may be asked again: first by its service, then by systemd when that has given up.
order() { awk -v names=" ${*:2} " 'index(names, " " $1 " ") && !seen[$1, $2]++ { printf "%s%s %s", n++ ? ", " : "", $1, $2 }' "$log/$1/order"; }
at() { awk -v name="$2" -v what="$3" '$1 == name && $2 == what { print int($3 * 1000 + 0.5); exit }' "$log/$1/order"; }
wanted() { local web='web TERM, web ended'; [ "$(variant "$1")" -ne 3 ] || web='web TERM'; echo "$web, app TERM, app ended, db TERM, db ended"; }

# span GRAPH NAME UNIT : from when to when, in seconds after the shutdown was asked for. The end of one that was killed is when its unit ended.
span() {
    local asked from to how=''
    asked=$(<"$log/asked") from=$(at "$1" "$2" TERM) to=$(at "$1" "$2" ended)
    if [ -z "$to" ]; then
        how='!'
        to=$(journalctl -b -1 -o json --no-pager _PID=1 "UNIT=$3" | sed -n 's/.*"__MONOTONIC_TIMESTAMP" *: *"\([0-9]*\)[0-9]\{3\}".*/\1/p' | tail -n 1)
    fi
    awk -v a="$asked" -v f="$from" -v t="$to" -v h="$how" 'BEGIN { printf "%s-%s%s", f ? sprintf("%.2f", (f - a) / 1000) : "?", t ? sprintf("%.2f", (t - a) / 1000) : "killed", t ? h : "" }'
}
# tell ROUND GRAPH UNITS [NAME] : a row of the table; %s in UNITS is the name of a container. NAME is one more.
tell() {
    local verdict=exact graph=$2
    if [ ! -e "$log/$graph/order" ]; then
        verdict='not seen'
    elif [ "$(order "$graph" web app db)" != "$(wanted "$1")" ]; then
        verdict="not exact: $(order "$graph" web app db)"
    fi
    # shellcheck disable=SC2059
    printf '%5s  %-12s  %-7s %-13s %-13s %-13s %-13s %s\n' "$1" "${variants[$(variant "$1")]}" "$graph" \
        "$(span "$graph" web "$(printf "$3" web)")" "$(span "$graph" app "$(printf "$3" app)")" "$(span "$graph" db "$(printf "$3" db)")" \
        "${4:+$(span "$graph" "$4" "$(printf "$3" "$4")")}" "$verdict" >>/host/told
}

check() {
    local lone db
    [ -e /host/told ] || printf '%5s  %-12s  %-7s %-13s %-13s %-13s %-13s %s\n' round variant graph web app db lone 'order (seconds after the request: TERM-end; ! killed)' >/host/told
    sed "s/^/# round $1: /" "$log/holm/order"
    tell "$1" holm holm-%s.scope lone
    tell "$1" scopes plain-%s.scope
    ! has_podman "$1" || tell "$1" podman quadlet-%s.service
    assert_eq "$(wanted "$1")" "$(order holm web app db)" "order in round $1"
    # It hangs for itself: the database, which is nobody's as well, has its signal at the same time and ends long before.
    lone=$(at holm lone TERM) db=$(at holm db TERM)
    test $((lone > db ? lone - db : db - lone)) -lt 1000 || fail "lone was asked at $lone ms, db at $db ms"
    [ "$(variant "$1")" -eq 3 ] || test $(($(at holm db ended) - db)) -lt 2500 || fail "db took $(($(at holm db ended) - db)) ms"
    assert_eq "0 success" "$(holmctl show db -p ExitStatus --value) $(holmctl show db -p Result --value)" "how db ended"
    assert_eq "137 timeout" "$(holmctl show lone -p ExitStatus --value) $(holmctl show lone -p Result --value)" "how lone ended"
    if [ "$(variant "$1")" -eq 3 ]; then
        test $(($(at holm app TERM) - $(at holm web TERM))) -gt 2500 || fail "the application did not wait for web"
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
