#!/bin/bash
# guest: shared
# A container is a scope as the design says, a machine, and no mount of the host.

holmctl run -d --name scoped --stop-timeout 1 --memory 64M --cpus 0.5 --pids-limit 50 busybox sleep 1000 >/dev/null
unit=holm-scoped.scope
property() { systemctl show -p "$1" --value "$unit"; }
assert_eq no "$(property DefaultDependencies)" DefaultDependencies
assert_eq holm.slice "$(property Slice)" Slice
assert_eq yes "$(property Delegate)" Delegate
assert_eq inactive-or-failed "$(property CollectMode)" CollectMode
assert_eq 67108864 "$(property MemoryMax)" MemoryMax
assert_eq 50 "$(property TasksMax)" TasksMax
assert_eq 500ms "$(property CPUQuotaPerSecUSec)" CPUQuotaPerSecUSec
case " $(property Conflicts) " in *" shutdown.target "*) fail "a plain container conflicts with shutdown.target";; esac
assert_eq no "$(systemctl show -p DefaultDependencies --value holm.slice)" "DefaultDependencies of holm.slice"

group=/sys/fs/cgroup$(property ControlGroup)
leader=$(holmctl show scoped -p Leader --value)
grep -qx "$leader" "$group/payload/cgroup.procs" || fail "the leader is not in payload/"
[ -n "$(cat "$group/supervisor/cgroup.procs")" ] || fail "no monitor in supervisor/"
assert_eq "" "$(cat "$group/cgroup.procs")" "no process directly in the scope"

case $(holmctl exec scoped sh -c 'cat /run/host/container-manager') in holm) ;; *) fail "container-manager";; esac
assert_eq holm "$(tr '\0' '\n' <"/proc/$leader/environ" | sed -n 's/^container=//p')" "container= in the environment"
holmctl run --rm -v /usr/bin/systemd-detect-virt:/detect:ro -v /usr/lib:/usr/lib:ro -v /lib64:/lib64:ro debian /detect >/tmp/virt 2>&1 || true
case $(cat /tmp/virt) in holm | container-other) ;; *) fail "systemd-detect-virt says '$(cat /tmp/virt)'";; esac

eventually 5 sh -c 'machinectl list --no-legend | grep -q "^scoped .*container.*holm"'
machinectl status scoped | grep -q "$unit" || fail "machinectl does not know the unit: $(machinectl status scoped)"

if grep -E ' /dev/(mapper/holm-|dm-)|/var/lib/holm/' /proc/self/mountinfo; then fail "a container's root shows in the host's mounts"; fi
for pid in $(pgrep -x holmd); do
    if grep -E ' /dev/(mapper/holm-|dm-)' "/proc/$pid/mountinfo"; then fail "a container's root shows in holmd's mounts"; fi
done

holmctl status scoped >/tmp/status
for word in scoped "$unit" busybox "$leader" running; do grep -q "$word" /tmp/status || fail "status lacks $word: $(cat /tmp/status)"; done
holmctl stop scoped
eventually 10 sh -c '! systemctl is-active -q holm-scoped.scope'
holmctl rm scoped
eventually 5 sh -c '! machinectl list --no-legend | grep -q "^scoped "'
