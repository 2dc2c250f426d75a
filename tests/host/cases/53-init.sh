#!/bin/bash
# guest: own
# needs: init-image
# timeout: 300
# A payload that is a whole system: named on the command line it boots without a flag, an image alone gives itself nothing, and the host's tools reach it. The lines of systemd's container interface about it: see case 52.

property() { systemctl show -p "$2" --value "$1"; }
within() { systemd-run -M deb --wait --quiet --pipe -- "$@"; }
variable_of() { tr '\0' '\n' <"/proc/$(holmctl show "$1" -p Leader --value)/environ" | sed -n "s/^$2=//p"; }
leader() { holmctl show deb -p Leader --value; }
# The system says of itself that it is up, and nothing of it has failed.
up() { [ "$(systemctl -M "${1:-deb}" is-system-running 2>/dev/null)" = running ]; }
boots() { eventually 60 settled "$1"; up "$1" || fail "not up: $(systemctl -M "$1" --failed --no-pager --no-legend)"; }
settled() { case $(systemctl -M "$1" is-system-running 2>/dev/null) in running | degraded) ;; *) false ;; esac; }
state() { holmctl show deb -p State --value; }

ln -sf ../usr/share/zoneinfo/Europe/Berlin /etc/localtime
holmctl image import /host/init-image/debian-init.oci.tar --name debian-init >/dev/null

# ---- an image that calls itself a system, and nobody else does: no privileges, and it is said what to do
bounding_of() { sed -n 's/^CapBnd:[[:space:]]*//p' "/proc/$(holmctl show "$1" -p Leader --value)/status"; }
privileged() { [ "$((0x$(bounding_of "$1") & (1 << 21 | 1 << 27)))" -ne 0 ]; }
is_system() { [ "$(busctl get-property org.holm1 "/org/holm1/container/$1" org.holm1.Container Boot)" = 'b true' ]; }
holmctl run -d --name alone debian-init >/dev/null 2>/tmp/advice
assert_has "$(cat /tmp/advice)" --systemd=always "holmctl run of an image whose command is an init"
refute is_system alone
case $(holmctl show alone -p State --value) in running) refute privileged alone ;; esac
warned() { journalctl -b -u holmd.service -p warning -o cat --no-pager | grep -q 'debian-init.* calls itself a whole system.*alone.*--systemd=always'; }
eventually 5 warned
holmctl rm --force alone
holmctl create --name alone debian-init 2>&1 >/dev/null | grep -q -e --systemd=always || fail "holmctl create says nothing"
refute is_system alone
holmctl rm alone
# Said by the caller, one way or the other, there is nothing to tell; and another program of the caller's is none.
assert_eq "" "$(holmctl run -d --name alone --systemd=never debian-init 2>&1 >/dev/null)" "--systemd=never is told something"
refute is_system alone
holmctl rm --force alone
holmctl run -d --name alone --entrypoint '["sleep", "1000"]' debian-init >/dev/null
refute is_system alone
refute privileged alone
holmctl rm --force alone
# The administrator may let images do it.
mkdir -p /etc/holm/holm.toml.d
printf '[containers]\nimages-may-boot = true\n' >/etc/holm/holm.toml.d/images.toml
systemctl restart holmd.service
assert_eq "" "$(holmctl run -d --name alone debian-init 2>&1 >/dev/null)" "images-may-boot: is told something"
is_system alone || fail "images-may-boot has no effect"
privileged alone || fail "a system has no privileges"
boots alone
rm /etc/holm/holm.toml.d/images.toml
systemctl restart holmd.service
# What was decided stays.
is_system alone || fail "a container is another thing after a change of the configuration"
holmctl stop alone
holmctl rm alone

start=$EPOCHREALTIME
holmctl run -d --name deb debian-init /sbin/init >/dev/null 2>/tmp/advice
assert_eq "" "$(cat /tmp/advice)" "what is said when an init is named"
boots deb
note "up after $(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s"
id=$(holmctl show deb -p Id --value)
unit=holm-deb.scope
assert_eq graphical.target "$(systemctl -M deb get-default)" "the default target"
systemctl -M deb is-active --quiet graphical.target multi-user.target dbus.service systemd-logind.service systemd-journald.service || fail "$(systemctl -M deb --no-pager)"

# ---- what it finds
assert_eq "holm $id $id" "$(within sh -c 'cat /run/host/container-manager /run/host/container-uuid /etc/machine-id' | xargs)" "C2, C25"
assert_match "$(within systemd-detect-virt)" '^(holm|container-other)$' "C1 systemd-detect-virt"
assert_match "$(within cat /proc/1/cgroup)" '^0::/init.scope$' "C17"
within mkdir /sys/fs/cgroup/its-own || fail "C18: the system cannot make cgroups"
within rmdir /sys/fs/cgroup/its-own
refute within sh -c 'echo 1 >/sys/fs/cgroup/memory.max || echo 1 >/sys/fs/cgroup/cgroup.freeze' 2>/dev/null
test -d "/sys/fs/cgroup$(property "$unit" ControlGroup)/payload/system.slice" || fail "C39: the system's cgroups are not below payload/"
assert_eq ../usr/share/zoneinfo/Europe/Berlin "$(within readlink /etc/localtime)" "C19"
bounding=$(within sed -n 's/^CapBnd:[[:space:]]*//p' /proc/1/status)
assert_eq "$((1 << 21 | 1 << 27))" "$((0x$bounding & (1 << 21 | 1 << 27)))" "C21 SYS_ADMIN and MKNOD"
assert_eq 0 "$((0x$bounding & (1 << 29 | 1 << 30 | 1 << 37)))" "C22 audit capabilities"
for mount in /run /run/lock /tmp /dev; do assert_eq tmpfs "$(within findmnt -no FSTYPE "$mount" || within stat -f -c %T "$mount")" "$mount"; done
for path in kcore keys timer_list; do refute within sh -c "test -s /proc/$path"; done
refute within sh -c 'echo x >/proc/sys/kernel/domainname' 2>/dev/null
assert_eq 1024,524288 "$(within sh -c 'echo $(ulimit -Sn),$(ulimit -Hn)')" "limits"
assert_eq "" "$(tr '\0' '\n' <"/proc/$(leader)/environ" | grep container_ttys || true)" "C3"
assert_match "$(within stat -c %t /dev/console)" '^88$' "C13: /dev/console is a pty"

# ---- its console is kept, and emptied into the journal
has_said() { holmctl logs deb | grep -q "$1"; }
eventually 5 has_said 'Reached target.*multi-user.target'
systemctl restart holmd.service
within sh -c 'head -c 100000 /dev/zero | tr "\0" x | fold -w 70 >/dev/console; echo console-after-restart >/dev/console'
eventually 5 has_said console-after-restart
assert_eq running "$(state)" "after a restart of holmd"

# ---- machinectl and the -M of others
machinectl list --no-legend | grep -q '^deb .*container.*holm.*debian.*12' || fail "$(machinectl list)"
machinectl status --no-pager deb | grep -q "$unit" || fail "machinectl status"
assert_eq "$id running $(leader)" "$(machinectl show deb -p Id --value) $(machinectl show deb -p State --value) $(machinectl show deb -p Leader --value)" "machinectl show"
machinectl shell deb /bin/sh -c 'echo shell-was-here >/root/shell; id -un >>/root/shell' >/dev/null 2>&1 </dev/null
wrote() { [ "$(within xargs </dev/null cat /root/shell 2>/dev/null)" = "shell-was-here root" ] || [ "$(within cat /root/shell | xargs)" = "shell-was-here root" ]; }
eventually 5 wrote
python3 - <<'P' || fail "machinectl login"
import os, pty, select, sys, time
pid, master = pty.fork()
if pid == 0:
    os.execvp("machinectl", ["machinectl", "login", "deb"])
seen, end = b"", time.monotonic() + 30
def wait(text):
    global seen
    while text not in seen:
        if time.monotonic() > end: sys.exit("no %r in %r" % (text, seen))
        if select.select([master], [], [], 0.5)[0]:
            try: seen += os.read(master, 4096)
            except OSError: sys.exit("closed: %r" % seen)
    seen = seen.split(text, 1)[1]
wait(b"login: "); os.write(master, b"root\n")
wait(b"Password: "); os.write(master, b"holm\n")
wait(b"# "); os.write(master, b"echo lo''gged-in\n")
wait(b"logged-in"); os.write(master, b"exit\n")
P
echo in >/tmp/in
machinectl copy-to deb /tmp/in /root/in
assert_eq in "$(within cat /root/in)" "machinectl copy-to"
machinectl copy-from deb /etc/debian_version /tmp/version
assert_eq 12 "$(cut -d. -f1 /tmp/version)" "machinectl copy-from"
mkdir -p /srv/sent && echo sent >/srv/sent/file
machinectl bind --mkdir deb /srv/sent /srv/received
assert_eq sent "$(within cat /srv/received/file)" "machinectl bind"
machinectl bind --mkdir --read-only deb /srv/sent /srv/read-only
refute within touch /srv/read-only/x 2>/dev/null
assert_match "$(systemctl -M deb list-units --no-legend --plain 'dbus.service')" '^dbus.service' "systemctl -M"
journal_has() { journalctl -M deb --no-pager -o cat | grep -q 'Startup finished'; }; eventually 5 journal_has
assert_match "$(busctl -M deb --no-pager list)" org.freedesktop.systemd1 "busctl -M"
assert_eq out "$(systemd-run -M deb --wait --quiet --pipe echo out)" "systemd-run -M"
assert_eq 42 "$(systemd-run -M deb --wait --quiet --pipe sh -c 'exit 42' || echo $?)" "systemd-run -M: exit status"
[ -n "$(machinectl show deb -p Subgroup --value)" ] || assert_eq deb "$(ps -o machine= -p "$(leader)" | xargs)" "ps -o machine"
holmctl exec deb systemctl is-active dbus.service >/dev/null || fail "systemctl in holmctl exec"
# Names by nss-mymachines need an address: with --network none there is none, and with the host's there is none of its own.
assert_match "$(busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager GetMachineAddresses s deb 2>&1)" '^(a\(iay\) 0|.*networking.*)$' "addresses"

# ---- the journal on the host (C33)
merged() { journalctl -m --no-pager -o cat "_MACHINE_ID=$id" 2>/dev/null | grep -q 'Startup finished'; }; eventually 5 merged
test -L "/var/log/journal/$id" || fail "C33: no link to the journal"
# ---- sockets for the host (C29)
systemd-run -M deb --quiet --unit=exported sh -c 'echo x >/run/host/unix-export/seen; sleep 1000'
seen() { [ "$(cat /run/systemd/nspawn/unix-export/deb/seen)" = x ]; }; eventually 5 seen
systemctl -M deb stop exported

# ---- ready when the system has come up, and what it is given reaches its units
echo "for its units, 4c1d" >/tmp/given
holmctl run -d --name given --ready notify --credential holm.given:/tmp/given debian-init /sbin/init >/dev/null
up given || fail "C5: not up when its start is done: $(systemctl -M given --failed --no-pager --no-legend)"
assert_eq "for its units, 4c1d" "$(systemd-run -M given --wait --quiet --pipe -p LoadCredential=holm.given sh -c 'cat "$CREDENTIALS_DIRECTORY/holm.given"')" "C6: LoadCredential="
refute systemd-run -M given --wait --quiet --pipe sh -c 'touch /run/host/credentials/x' 2>/dev/null
assert_eq /run/host/notify "$(variable_of given NOTIFY_SOCKET)" "C5, C26"
assert_eq /run/host/credentials "$(variable_of given CREDENTIALS_DIRECTORY)" "C6, C26"
holmctl rm --force given
refute holmctl run -d --survive-soft-reboot debian-init /sbin/init 2>/tmp/refused
assert_has "$(cat /tmp/refused)" "SurviveSoftReboot" "a system that would not survive"

# ---- reboot, from outside and from inside (C31)
for how in 'machinectl reboot deb' 'systemctl -M deb reboot'; do
    before=$(leader)
    within sh -c 'echo kept >/root/kept; echo lost >/tmp/lost'
    # systemctl's own connection may end with the system before it has its answer.
    $how || note "status $? of '$how'"
    anew() { [ "$(leader)" != "$before" ] && [ "$(state)" = running ]; }; eventually 20 anew
    boots deb
    assert_eq "$id kept" "$(within cat /etc/machine-id /root/kept | xargs)" "after a reboot by '$how'"
    refute within test -e /tmp/lost
    eventually 5 merged
done
# While no daemon runs: it is noticed by the next one.
before=$(leader)
systemctl stop holmd.service
nsenter -t "$before" -a systemctl reboot --force </dev/null >/dev/null 2>&1 || true
ended() { ! test -e "/proc/$before"; }; eventually 30 ended
systemctl start holmd.service
eventually 20 anew
boots deb

# ---- a clone is another machine
holmctl clone deb twin >/dev/null
holmctl start twin
boots twin
twin=$(holmctl show twin -p Id --value)
[ "$twin" != "$id" ] || fail "a clone has its origin's id"
assert_eq "$twin $twin" "$(systemd-run -M twin --wait --quiet --pipe sh -c 'cat /etc/machine-id /run/host/container-uuid' | xargs)" "C2: a clone's machine-id"
machinectl terminate twin
now() { holmctl show twin -p State --value; }; eventually_eq 60 stopped now
assert_eq success "$(holmctl show twin -p Result --value)" "machinectl terminate: the system was asked, and stopped in order"
holmctl rm twin

# ---- power off: from outside, from inside, by holmctl, by systemd
for how in 'machinectl poweroff deb' 'systemctl -M deb poweroff' 'holmctl stop deb' "systemctl stop $unit"; do
    $how || note "status $? of '$how'"
    eventually_eq 60 stopped state
    assert_eq "0 success" "$(holmctl show deb -p ExitStatus --value) $(holmctl show deb -p Result --value)" "after '$how'"
    test ! -L "/var/log/journal/$id" || fail "C33: the link to the journal is left"
    test ! -e /run/systemd/nspawn/unix-export/deb || fail "C29: the link to the sockets is left"
    unlisted() { ! machinectl list --no-legend | grep -q '^deb '; }; eventually 5 unlisted
    holmctl start deb
    boots deb
done
# A stop at once is not lost, though nobody in there listens yet.
holmctl restart deb
holmctl stop deb
assert_eq success "$(holmctl show deb -p Result --value)" "a stop right after a start"
holmctl start deb
boots deb
machinectl kill --kill-whom=leader --signal=KILL deb 2>/dev/null || machinectl kill --kill-who=leader --signal=KILL deb
eventually_eq 10 failed state
assert_eq signal "$(holmctl show deb -p Result --value)" "machinectl kill"

# ---- in the foreground: a reboot is not the end of it, and the console is the caller's
holmctl run --rm --name front debian-init /sbin/init >/tmp/front </dev/null &
front=$!
fronts() { grep -ac "Reached target.*multi-user.target" /tmp/front; }
eventually_eq 60 1 fronts
machinectl reboot front
eventually_eq 60 2 fronts
machinectl poweroff front
rc=0; wait "$front" || rc=$?
assert_eq 0 "$rc" "exit status of a system that powered off"
now() { holmctl list --all --no-legend | grep -c '^front ' || true; }; eventually_eq 10 0 now

holmctl run --rm --name front --systemd always debian-init >/tmp/front </dev/null &
front=$!
eventually_eq 60 1 fronts
kill -TERM "$front"
rc=0; wait "$front" || rc=$?
assert_eq 0 "$rc" "a system whose follower is asked to end powers off"
grep -aq 'Reached target.*shutdown.target' /tmp/front || fail "it did not stop in order"
refute holmctl attach deb 2>/dev/null

# ---- as anything else, when that is wanted
assert_eq 1 "$(holmctl run --rm --systemd never debian-init /sbin/init >/dev/null 2>&1 </dev/null; holmctl run --rm --systemd never debian-init sh -c 'mkdir /sys/fs/cgroup/x' >/dev/null 2>&1 </dev/null; echo $?)" "--systemd never"
holmctl run --rm --systemd always debian-init sh -c 'mkdir /sys/fs/cgroup/x' </dev/null || fail "--systemd always"
refute holmctl run --rm --systemd always --user 1000 debian-init 2>/dev/null
holmctl rm deb
