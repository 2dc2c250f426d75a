#!/bin/bash
# guest: own
# timeout: 120
# systemd's container interface, as a payload of a single program finds it: facts/peers.md, section 3, lines C1 to C55. Case 53 has the lines about whole systems.

declare -A verdict
# ok LINE… : these lines hold. elsewhere WHERE LINE… ; later WHY LINE…
ok() { local line; for line; do verdict[$line]="ok"; done; }
elsewhere() { local where=$1 line; shift; for line; do verdict[$line]="case $where"; done; }
later() { local why=$1 line; shift; for line; do verdict[$line]="later: $why"; done; }
inside() { holmctl exec iface "$@"; }
property() { systemctl show -p "$2" --value "$1"; }
variable() { tr '\0' '\n' <"/proc/$(holmctl show "$1" -p Leader --value)/environ" | sed -n "s/^$2=//p"; }
touches() { inside touch "$1" 2>/dev/null; }

SECRET_OF_THE_HOST=1 holmctl run -dt --name iface --memory 64M --pids-limit 50 --stop-timeout 1 busybox sh -c 'while :; do sleep 1000; done' >/dev/null
leader=$(holmctl show iface -p Leader --value)
id=$(holmctl show iface -p Id --value)
unit=holm-iface.scope
group=/sys/fs/cgroup$(property "$unit" ControlGroup)

# ---- the environment of PID 1
assert_eq holm "$(variable iface container)" "C1 container="
ok C1
assert_eq "$id" "$(variable iface container_uuid)" "C2 container_uuid="
holmctl clone iface twin >/dev/null
holmctl start twin
[ "$(variable twin container_uuid)" != "$id" ] || fail "C2: a clone has its origin's uuid"
[ -n "$(variable twin container_uuid)" ] || fail "C2: a clone has no uuid"
before=$(variable twin container_uuid)
holmctl restart twin
assert_eq "$before" "$(variable twin container_uuid)" "C2 container_uuid= after a restart"
holmctl rm --force twin
ok C2
assert_eq "" "$(variable iface container_ttys)" "C3: nothing is listed, as machinectl login makes a terminal when it wants one"
ok C3
. /etc/os-release
assert_eq "$ID" "$(variable iface container_host_id)" "C4 container_host_id="
assert_eq "${VERSION_ID-}" "$(variable iface container_host_version_id)" "C4 container_host_version_id="
ok C4
assert_eq "" "$(variable iface SECRET_OF_THE_HOST)$(variable iface INVOCATION_ID)$(variable iface JOURNAL_STREAM)" "C8: the host's environment"
[ -n "$(variable iface TERM)" ] || fail "C8: no TERM for a terminal"
ok C8

# ---- file systems and devices
assert_eq iface "$(inside hostname)" "C9 host name"
ok C9
mounts=$(inside cat /proc/self/mountinfo)
mounted() { awk -v at="$1" '$5 == at { for (i = 7; i <= NF; i++) if ($i == "-") { print $6, $(i + 1), $4; exit } }' <<<"$mounts"; }
assert_match "$(mounted /proc)" '^rw.* proc /$' "C10 /proc"
assert_match "$(mounted /sys)" ' sysfs /$' "C10 /sys"
ok C10
assert_match "$(mounted /sys)" '^ro,' "C11 /sys"
refute touches /sys/x
ok C11
assert_match "$(mounted /proc/sys)" '^ro,' "C12 /proc/sys"
refute inside sh -c 'echo x >/proc/sys/kernel/domainname' 2>/dev/null
ok C12
assert_match "$(mounted /dev)" ' tmpfs /$' "C13 /dev"
for node in null:1,3 zero:1,5 full:1,7 random:1,8 urandom:1,9 tty:5,0; do
    assert_eq "${node#*:}" "$(inside stat -c %t,%T "/dev/${node%:*}")" "C13 /dev/${node%:*}"
done
assert_eq pts/ptmx "$(inside readlink /dev/ptmx)" "C13 /dev/ptmx"
assert_match "$(mounted /dev/console)" ' devpts /0$' "C13 /dev/console"
ok C13
systemctl restart holmd.service
inside sh -c 'echo still there >/dev/console' || fail "C14: the console's master was closed with the daemon"
ok C14
for path in tty1 vcs kmsg loop0 ubda mem; do refute inside test -e "/dev/$path"; done
assert_eq "" "$(inside find /dev -type b)" "C16 block devices"
ok C16
assert_eq "0::/" "$(tr '\0' '\n' <"/proc/$leader/cgroup" | head -n 1 | sed 's,0::/.*/payload$,0::/,')" "C17 the payload's own cgroup"
assert_match "$(mounted /sys/fs/cgroup)" ' cgroup2 /$' "C17: cgroup2 is mounted whole, in a namespace of its own"
assert_match "$(inside sh -c 'cat /proc/1/cgroup')" '^0::/$' "C17 the cgroup namespace"
ok C17
assert_match "$(mounted /sys/fs/cgroup)" '^ro,' "C18: one program has no cgroups to make"
refute inside mkdir /sys/fs/cgroup/x 2>/dev/null
assert_eq cgroup2fs "$(stat -f -c %T "/proc/$leader/root/sys/fs/cgroup")" "C18 the kernel's unified mode"
ok C18
printf 'nameserver 192.0.2.1\n' >/etc/resolv.conf
assert_eq 'nameserver 192.0.2.1' "$(holmctl run --rm --network host busybox cat /etc/resolv.conf)" "C20 with the host's network"
refute holmctl run --rm --network none busybox test -s /etc/resolv.conf
refute holmctl run --rm --network host busybox sh -c 'echo x >/etc/resolv.conf' 2>/dev/null
: >/etc/resolv.conf
ok C20

# ---- capabilities: CAP_AUDIT_WRITE, _CONTROL and _READ are bits 29, 30 and 37
bounding=$(inside sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
assert_eq 0 "$((0x$bounding & (1 << 29 | 1 << 30 | 1 << 37)))" "C22 audit capabilities"
ok C22

# ---- /run/host
refute touches /run/host/x
ok C24
assert_eq holm "$(inside cat /run/host/container-manager)" "C25 container-manager"
assert_eq "$id" "$(inside cat /run/host/container-uuid)" "C25 container-uuid"
assert_eq 5,33 "$(inside wc -c /run/host/container-manager | awk '{ print $1 }'),$(inside wc -c /run/host/container-uuid | awk '{ print $1 }')" "C25 newline at the end"
assert_eq "$(cat /etc/os-release)" "$(inside cat /run/host/os-release)" "C25 os-release"
ok C25
mkdir -p /srv/sent && echo sent >/srv/sent/file
eventually 5 machinectl show iface
machinectl bind --mkdir iface /srv/sent /sent
assert_eq sent "$(inside cat /sent/file)" "C27 machinectl bind"
if grep -q srv/sent /proc/self/mountinfo; then fail "C27: what was sent in is left mounted on the host"; fi
ok C27
for kind in reg dir fifo sock chr blk; do
    assert_eq 0 "$(inside stat -c %a "/run/host/inaccessible/$kind")" "C28 $kind"
done
assert_eq "0,0 0,0" "$(inside stat -c %t,%T /run/host/inaccessible/chr /run/host/inaccessible/blk | xargs)" "C28 device numbers"
ok C28

# ---- the end and the journal
holmctl run -d --name deaf --stop-timeout 1 busybox sh -c 'trap "" TERM; (trap "" TERM; sleep 1000) & while :; do sleep 1000; done' >/dev/null
deaf=/sys/fs/cgroup$(property holm-deaf.scope ControlGroup)
holmctl stop deaf
assert_eq timeout "$(holmctl show deaf -p Result --value)" "C32 Result"
gone() { ! grep -qs 'populated 1' "$deaf/cgroup.events"; }; eventually 5 gone
holmctl rm deaf
ok C32
holmctl run -d --name speaks busybox sh -c 'echo something to find; while :; do sleep 1000; done' >/dev/null
entry() { journalctl -b -o json --no-pager "_SYSTEMD_UNIT=holm-$1.scope" MESSAGE='something to find' | tail -n 1; }
said() { entry "$1" | grep -q "\"CONTAINER_NAME\":\"$1\""; }; eventually 5 said speaks
assert_has "$(entry speaks)" '"SYSLOG_IDENTIFIER":"speaks"' "C34 identifier"
assert_has "$(entry speaks)" "\"_SYSTEMD_INVOCATION_ID\":\"$(property holm-speaks.scope InvocationID)\"" "C34 invocation id"
holmctl rm --force speaks
# One that is over before journald looks may lack the invocation id, which systemd takes away with the scope, but not whose it is and of which run.
holmctl run -d --name short busybox echo 'something to find' >/dev/null
short=$(holmctl show short -p Id --value)
eventually 5 said short
assert_has "$(entry short)" "\"CONTAINER_ID\":\"$short\"" "C34 of a short run"
assert_has "$(entry short)" '"HOLM_RUN":"1"' "C34 of a short run"
holmctl rm short
ok C34

# ---- cgroups and the unit
assert_eq yes,yes "$(property "$unit" Transient),$(property "$unit" Delegate)" "C36 a transient scope with delegation"
assert_eq no "$(property holm.slice Delegate)" "C36 no delegation of a slice"
ok C36
assert_eq holm.slice "$(property "$unit" Slice)" "C37 the slice, which is ours for the order at shutdown (decision 0091)"
assert_eq 67108864,50 "$(property "$unit" MemoryMax),$(property "$unit" TasksMax)" "C37 limits are the unit's"
ok C37
assert_eq "$(property "$unit" ControlGroup)" "$(holmctl show iface -p ControlGroup --value)" "C38 ControlGroup"
grep -q "^0::$(property "$unit" ControlGroup)/payload$" "/proc/$leader/cgroup" || fail "C38: the leader is elsewhere: $(cat "/proc/$leader/cgroup")"
ok C38
assert_eq "" "$(cat "$group/cgroup.procs")" "C39 no process in the scope itself"
grep -qx "$leader" "$group/payload/cgroup.procs" || fail "C39: the leader is not in payload/"
[ -n "$(cat "$group/supervisor/cgroup.procs")" ] || fail "C39: nobody in supervisor/"
ok C39
holmctl exec -d iface sleep 1000
for part in "$group"/*/; do
    assert_match "$(basename "$part")" '^(payload|supervisor|exec-[0-9]+)$' "C40 a cgroup's name"
done
ls -d "$group"/exec-*/ >/dev/null || fail "C39: no cgroup for what entered"
ok C40
assert_eq active "$(property "$unit" ActiveState)" "C41 the scope is there when the start is done"
refute holmctl start iface 2>/dev/null
ok C41
assert_eq "" "$(property "$unit" Controller)" "C42: no controller, as the monitor heeds systemd's signal (decision 0091)"
holmctl run -d --name polite busybox sh -c 'trap "echo heard >/heard; exit 0" TERM; while :; do sleep 0.1; done' >/dev/null
sleep 0.5
systemctl stop holm-polite.scope
now() { holmctl show polite -p State --value; }; eventually_eq 5 stopped now
holmctl start polite
assert_eq heard "$(holmctl exec polite cat /heard)" "C42 a stop by systemd"
holmctl rm --force polite
ok C42
assert_eq "$leader,active" "$(holmctl show iface -p Leader --value),$(property "$unit" ActiveState)" "C43 after the restart of holmd above"
ok C43
assert_eq 7 "$(holmctl run --name seven busybox sh -c 'exit 7' </dev/null || echo $?)" "C44 exit status"
assert_eq 7,exit-code "$(holmctl show seven -p ExitStatus --value),$(holmctl show seven -p Result --value)" "C44 collected by us"
holmctl rm seven
ok C44
for controller in $(cat "$group/payload/cgroup.controllers"); do
    grep -qw "$controller" "$group/cgroup.controllers" || fail "C45: $controller"
done
[ "$(wc -w <"$group/payload/cgroup.controllers")" -lt 6 ] || note "this kernel has every controller: that a missing one is tolerated is seen on others"
ok C45
assert_eq "6s control-group continue inactive-or-failed no" \
    "$(property "$unit" TimeoutStopUSec) $(property "$unit" KillMode) $(property "$unit" OOMPolicy) $(property "$unit" CollectMode) $(property "$unit" DefaultDependencies)" "C46"
assert_eq "Container iface" "$(property "$unit" Description)" "C46 Description"
# Without order of its own it is holmd, or holm-shutdown.service, that stops it (decision 0050); a unit's is ordered explicitly.
assert_eq active "$(property holm-shutdown.service ActiveState)" "C46: who stops it when holmd cannot"
busctl call org.holm1 /org/holm1 org.holm1.Manager RunContainer 'ssa{sv}' ordered busybox 2 Command as 2 sleep 1000 WantedBy s multi-user.target >/dev/null
ordered() { holmctl show ordered -p State --value; }; eventually_eq 5 running ordered
assert_has " $(property holm-ordered.scope Before) " " multi-user.target " "C46 explicit order"
for before in holmd.service holm-shutdown.service; do assert_has " $(property holm-ordered.scope After) " " $before " "C46 explicit order"; done
holmctl rm --force ordered
ok C46
stat_of() { busctl --json=short call org.holm1 /org/holm1/container/iface org.holm1.Container GetStats | sed -n "s/.*\"$1\":{\"type\":\"t\",\"data\":\([0-9]*\)}.*/\1/p"; }
assert_eq "$(property "$unit" TasksCurrent)" "$(stat_of TasksCurrent)" "C47 TasksCurrent"
first=$(property "$unit" CPUUsageNSec) ours=$(stat_of CPUUsageUSec) second=$(property "$unit" CPUUsageNSec)
[ "$((first / 1000))" -le "$ours" ] && [ "$ours" -le "$((second / 1000 + 1))" ] || fail "C47: CPU $first $ours $second"
ok C47

# ---- machined
machine() { machinectl show iface -p "$1" --value; }
assert_eq "$id holm container $leader $unit" "$(machine Id) $(machine Service) $(machine Class) $(machine Leader) $(machine Unit)" "C48"
assert_eq 's "",ai 0' "$(busctl get-property org.freedesktop.machine1 /org/freedesktop/machine1/machine/iface org.freedesktop.machine1.Machine RootDirectory NetworkInterfaces | paste -sd,)" \
    "C48: no root that the host could see, no interface of the host"
ok C48
systemctl restart systemd-machined.service
listed() { machinectl list --no-legend | grep -q '^iface '; }; eventually 10 listed
ok C49
machinectl status --no-pager iface | grep -q "$unit" || fail "C50 machinectl status"
# A machined that tells a machine's part of its unit (systemd 258 and newer) keeps no way from the unit to it, and ps knows none.
[ -n "$(machine Subgroup)" ] || assert_eq iface "$(ps -o machine= -p "$leader" | xargs)" "C50 ps -o machine"
machinectl kill --kill-whom=leader --signal=CONT iface 2>/dev/null || machinectl kill --kill-who=leader --signal=CONT iface
echo out >/tmp/out
machinectl copy-to iface /tmp/out /out
assert_eq out "$(inside cat /out)" "C50 copy-to"
machinectl copy-from iface /etc/passwd /tmp/passwd
grep -q busybox /tmp/passwd || grep -q root /tmp/passwd || fail "C50 copy-from"
ok C50

# ---- our own daemon
for want in Type=notify WatchdogUSec=1min FileDescriptorStoreMax=4096; do
    assert_eq "${want#*=}" "$(property holmd.service "${want%=*}")" "C53 ${want%=*}"
done
[ "$(property holmd.service NFileDescriptorStore)" -ge 1 ] || fail "C53: the terminal's master is not stored"
ok C53
systemctl restart systemd-journald.service
systemctl daemon-reexec
assert_eq "$leader" "$(holmctl show iface -p Leader --value)" "C54 the leader after restarts of journald, machined, systemd and holmd"
systemctl kill -s KILL holmd.service
inside true || eventually 10 inside true
assert_eq "$leader" "$(holmctl show iface -p Leader --value)" "C54 the leader after holmd was killed"
ok C54

machinectl terminate iface
now() { holmctl show iface -p State --value; }
ended() { case $(now) in stopped | failed) ;; *) false ;; esac; }; eventually 10 ended
unlisted() { ! listed; }; eventually 5 unlisted
test ! -e /run/systemd/nspawn/propagate/iface || fail "C27: the place for what is sent in is left"
holmctl rm iface

elsewhere "53-init" C19 C21 C29 C31 C33
elsewhere "55-service" C5 C6 C7 C26
later "with user namespaces" C15 C23 C30
later "nobody asked for it: what dumps core inside is the host's to keep" C35
later "with networks" C51 C52
elsewhere "98-soft-reboot" C55
for line in $(seq 55); do
    printf '%-4s %s\n' "C$line" "${verdict[C$line]:-MISSING}"
done >/tmp/table
cat /tmp/table
refute grep MISSING /tmp/table
