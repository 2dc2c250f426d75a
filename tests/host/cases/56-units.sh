#!/bin/bash
# guest: own
# vm: VM_MEM=2048
# timeout: 420
# needs: units
# Files that declare containers, as people write them: every good sample is verified, started and stopped, side by side; every bad one
# fails with its message, in `verify` and in `systemctl status`; systemd finds nothing wrong in any unit. The archive is /host/images/busybox.tar.

units=/etc/holm/units
# Bind mounts and archives beside the files; what is there is the samples and nothing else.
put() { rm -rf "$units"; mkdir -p /etc/holm; cp -a "/host/units/$1" "$units"; systemctl daemon-reload; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'; }
state() { systemctl show --value -p ActiveState "$1"; }

# ---- the good ones
put good
holmctl unit verify
generated=/run/systemd/generator
holmctl unit list --no-legend >/tmp/list
refute grep -vE ' ok +(enabled|static|template) ' /tmp/list
# The generator alone, as often as it takes to see what a boot pays for it.
start=$EPOCHREALTIME
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf /tmp/out; mkdir /tmp/out; /usr/lib/systemd/system-generators/holm-generator /tmp/out /tmp/out /tmp/out; done
note "the generator: $(seconds "$start") for 10 runs over $(wc -l </tmp/list) files, $(stat -c %s /usr/lib/systemd/system-generators/holm-generator) bytes"
for unit in /tmp/out/*.service; do cmp "$unit" "$generated/${unit##*/}"; done

# What systemd says of every unit.
mapfile -t all < <(grep -ls holm-generator "$generated"/*.service "$generated"/*.socket | while read -r unit; do [ -L "$unit" ] || echo "$unit"; done)
systemd-analyze verify --man=no "${all[@]}" >/tmp/verify 2>&1 || { cat /tmp/verify; fail "systemd-analyze verify"; }
# Only of ours: it loads others that these name.
refute grep -E "$(printf '%s\n' "${all[@]##*/}" | sed 's/[.@]/\\&/g' | paste -sd'|')" /tmp/verify
note "systemd-analyze verify: ${#all[@]} units"

mapfile -t services < <(sed -n 's/^[^ ]*\.container  *\([^ ]*\.service\) .*/\1/p' /tmp/list | grep -v '@\.service')
services+=("20-template@one.service")
[ "${#services[@]}" -eq 42 ] || fail "${#services[@]} services of containers"
start=$EPOCHREALTIME
# The socket units first: they are what starts those two in practice.
systemctl start 29-socket.socket 30-sockets.socket
systemctl start "${services[@]}" || { systemctl --no-pager --failed; for unit in "${services[@]}"; do [ "$(state "$unit")" = active ] || systemctl status --no-pager -l "$unit" || true; done; fail "not all have started"; }
note "${#services[@]} services started in $(seconds "$start")"
# Those that test something in their command ended if it did not hold.
for unit in "${services[@]}"; do assert_eq active "$(state "$unit")" "$unit"; done
# One of them has done its work.
[ "$(holmctl list --no-legend | wc -l)" -eq $((${#services[@]} - 1)) ] || fail "containers: $(holmctl list)"
assert_eq "loaded" "$(systemctl show --value -p LoadState thirty-two.service)" "an alias"
assert_eq active "$(state import-busy.service)" "the unit of an image"
mountpoint -q /run/holm/volumes/keep || fail "the tree of a volume is not mounted"
assert_eq here "$(cat /run/holm/volumes/keep/log)" "what a container wrote into a volume"
assert_eq 1000:1000 "$(stat -c %u:%g /run/holm/volumes/keep)" "the owner of a volume"
systemctl reload 23-reload-signal.service 24-reload-command.service
reloaded() { holmctl exec 24-reload-command test -e /tmp/reloaded; }
eventually 5 reloaded
assert_eq active "$(state 23-reload-signal.service)" "after a reload"
assert_has "$(journalctl -b -o cat -u 36-log.service -t 36-log; holmctl logs 36-log)" "to the journal" "what a container wrote"
# A restart of the daemon touches none.
before=$(holmctl show 01-minimal -p Leader --value)
systemctl restart holmd
assert_eq "$before" "$(holmctl show 01-minimal -p Leader --value)" "the leader after a restart of holmd"
for unit in "${services[@]}"; do assert_eq active "$(state "$unit")" "$unit after a restart of holmd"; done

start=$EPOCHREALTIME
systemctl stop 29-socket.socket 30-sockets.socket
systemctl stop "${services[@]}"
note "${#services[@]} services stopped in $(seconds "$start")"
for unit in "${services[@]}"; do assert_eq inactive "$(state "$unit")" "$unit after its stop"; done
assert_eq "19-database" "$(holmctl list --all --no-legend | awk '{ print $1 }')" "only what is kept on stop is left"
holmctl rm 19-database

# A second start of an image imports nothing, and a volume keeps what is in it, with a snapshot for each start.
systemctl stop keep-volume.service copied-tree.service import-busy.service
refute mountpoint -q /run/holm/volumes/keep
imported() { journalctl -b -o cat -u holmd.service | grep -c 'import-image' || true; }
imports=$(imported)
systemctl start 17-image-file.service 15-volume-file.service
assert_eq "$imports" "$(imported)" "imports of an archive that is there"
assert_eq 2 "$(wc -l </run/holm/volumes/keep/log)" "lines in a volume after a second start"
assert_eq 2 "$(holmctl device list --no-legend | grep -c '^volume:keep:')" "snapshots of a volume"
systemctl stop 17-image-file.service 15-volume-file.service keep-volume.service copied-tree.service

# ---- holm@.service: a container by its name
holmctl create --name byname --stop-timeout 1 busybox sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done' >/dev/null
systemctl start holm@byname
assert_eq running "$(holmctl show byname -p State --value)" "a container that its unit started"
systemctl stop holm@byname
assert_eq stopped "$(holmctl show byname -p State --value)" "a container that its unit stopped"
assert_eq inactive "$(state holm@byname)" "its unit"
holmctl rm byname
systemctl start holm@nobody 2>/dev/null && fail "a container that is not there was started"
# Its status may lack the line: systemd notes a start only after it has made the process, and leaves out what is older.
eventually 5 sh -c 'journalctl -b -o cat | grep -q "no container.*nobody"'
systemctl reset-failed

# ---- enable, disable, edit
assert_eq enabled "$(holmctl unit list --no-legend | awk '$1 == "02-web.container" { print $4 }')" "with [Install]"
test -L "$generated/multi-user.target.wants/02-web.service"
holmctl unit disable --now 02-web
refute test -e "$generated/multi-user.target.wants/02-web.service"
holmctl unit enable --now 02-web.service
test -L "$generated/multi-user.target.wants/02-web.service"
assert_eq active "$(state 02-web.service)" "after enable --now"
systemctl stop 02-web.service
assert_has "$(holmctl unit enable 01-minimal 2>&1 || true)" "add [Install]" "enabling what says nothing"
holmctl unit enable --now '20-template@three'
assert_eq active "$(state 20-template@three.service)" "an instance"
holmctl unit disable --now '20-template@three'
refute test -e "$units/20-template@three.container"
assert_eq inactive "$(state 20-template@three.service)" "an instance after disable --now"
printf '#!/bin/sh\nprintf "[Container]\\nMemory=%%s\\n" "$MEMORY" >"$1"\n' >/tmp/editor
chmod 755 /tmp/editor
export EDITOR=/tmp/editor MEMORY=32M
holmctl unit edit 01-minimal
grep -q -- --memory=32M "$generated/01-minimal.service" || fail "a drop-in by edit: $(holmctl unit cat 01-minimal)"
MEMORY=much
assert_status 125 holmctl unit edit 01-minimal 2>/tmp/err
assert_has "$(cat /tmp/err)" "override.conf:2: Memory=: 'much' is not a size" "what edit says"
grep -q -- --memory=32M "$generated/01-minimal.service" || fail "a wrong edit was taken over"
unset EDITOR MEMORY
assert_has "$(holmctl unit cat 01-minimal)" "# $units/01-minimal.container.d/override.conf" "unit cat"

# ---- [Service] User=: holmctl asks as that user, and polkit decides
useradd -r app 2>/dev/null || true
printf '[Container]\nImage=busybox\nExec=sleep infinity\nStopTimeout=1\n[Service]\nUser=app\n' >"$units/as-user.container"
mkdir -p /etc/polkit-1/rules.d
cat >/etc/polkit-1/rules.d/50-holm-app.rules <<'RULE'
polkit.addRule(function(action, subject) {
    if (action.id == "org.holm1.manage-containers" && subject.user == "app" && action.lookup("container") == "as-user")
        return polkit.Result.YES;
});
RULE
systemctl daemon-reload
started() { systemctl start as-user.service; }
eventually 10 started
assert_eq app "$(stat -c %U "/proc/$(systemctl show --value -p MainPID as-user.service)")" "who runs holmctl"
systemctl stop as-user.service
assert_eq inactive "$(state as-user.service)" "a unit with User="

# ---- what is passed on to systemd, and what it says of that
mkdir -p "$units/passed.container.d"
printf '%s\n' '[Unit]' 'Aftr=network.target' '[Container]' 'Image=busybox' 'Exec=sleep 1d' 'Environment=FOO=bar' '[Service]' 'Environment=a"b' >"$units/passed.container"
printf '%s\n' '[Service]' 'Restart = alway' 'Retsart=always' >"$units/passed.container.d/restart.conf"
start=$EPOCHREALTIME
assert_status 1 holmctl unit verify 2>/tmp/err
note "verify: $(seconds "$start")"
assert_has "$(cat /tmp/err)" "$units/passed.container:2: Aftr=: systemd: Unknown key" "a key of [Unit]"
assert_has "$(cat /tmp/err)" "$units/passed.container:8: Environment=: systemd: Invalid syntax" "a value of [Service]"
assert_has "$(cat /tmp/err)" "$units/passed.container.d/restart.conf:2: Restart=: systemd: Failed to parse" "a value in a drop-in"
assert_has "$(cat /tmp/err)" "$units/passed.container.d/restart.conf:3: Retsart=: systemd: Unknown key" "a key in a drop-in"
assert_eq "holmctl: 4 mistakes, in 1 of $(holmctl unit list --no-legend | wc -l) files" "$(tail -n 1 /tmp/err)" "the last line"
assert_status 1 holmctl unit verify passed 2>/dev/null

# ---- the bad ones
put bad
assert_status 1 holmctl unit verify 2>/tmp/err
grep -v '^holmctl: ' /tmp/err >/tmp/messages
diff /host/units/bad.golden /tmp/messages || fail "messages of verify"
assert_match "$(grep '^holmctl: ' /tmp/err)" '[0-9]+ mistakes, in 2[0-9] of 2[0-9] files' "the last line"
assert_status 1 holmctl unit verify --json >/tmp/json
python3 -c 'import json; found = json.load(open("/tmp/json")); assert len(found) > 20 and all(f["file"] and f["message"] for f in found)'
journalctl -b -o cat -t holm-generator >/tmp/journal
while read -r path unit; do
    case $path in "$units/20-double.container") continue ;; esac
    assert_eq loaded "$(systemctl show --value -p LoadState "$unit")" "$unit"
    assert_has "$(systemctl show --value -p Description "$unit")" "is wrong" "description of $unit"
    # One that another wants has been tried already.
    if [ "$(state "$unit")" != failed ]; then refute systemctl start "$unit" 2>/dev/null; fi
    assert_eq failed "$(state "$unit")" "$unit"
    systemctl status --no-pager -l -n 30 "$unit" >"/tmp/status.${path##*/}" || true
done < <(holmctl unit list --json | python3 -c 'import json, sys; [print(f["path"], f["unit"]) for f in json.load(sys.stdin)]')
while IFS= read -r message; do
    grep -qF -- "$message" /tmp/journal || fail "not in the journal after the reload: $message"
    file=${message%%:*} file=${file%.d/*} file=${file##*/}
    [ "$file" != 20-double.container ] || continue
    grep -qF -- "$message" "/tmp/status.$file" || fail "status lacks '$message': $(cat "/tmp/status.$file")"
done </host/units/bad.golden
note "$(wc -l </host/units/bad.golden) messages of bad files"
systemctl reset-failed
rm -rf "$units"
systemctl daemon-reload

# ---- the daemon's own unit
systemd-analyze verify --man=no holmd.service holm@x.service >/tmp/verify 2>&1 || true
# A systemd before 254 does not know the key, and says so.
refute grep -E '/(holmd|holm@)' <(grep -v FileDescriptorStorePreserve /tmp/verify)
note "systemd-analyze security: $(systemd-analyze security --no-pager holmd.service | tail -n 1)"
