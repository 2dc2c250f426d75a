#!/bin/bash
# guest: shared
# Snapshots, the way back, containers made of others, and what a container may use: of containers that run and that do not.

name=snap$$
holmctl run -d --name "$name" --stop-timeout 1 --label app=shop busybox sh -c '
    i=0
    while :; do i=$((i + 1)); echo $i >/a.new; sync /a.new; cp /a.new /b.new; mv /a.new /a; mv /b.new /b; done' >/dev/null
has_written() { holmctl exec "$name" cat /b; }
eventually 10 has_written

# A snapshot of a container that writes: named, listed with its time, and told how long it was held still.
said=$(holmctl snapshot "$name" first 2>&1)
assert_match "$said" "^first"$'\n'"holmctl: $name was held still for [0-9]+\.[0-9] ms\$" "what snapshot says"
made=$(holmctl snapshot "$name" 2>/dev/null)
assert_match "$made" '^[0-9]{8}-[0-9]{6}$' "a name made of the time"
assert_eq "first $made" "$(holmctl snapshot --list --no-legend "$name" | awk '{ print $1 }' | xargs)" "the list"
holmctl snapshot --list --json "$name" | python3 -c 'import json, sys; assert all(s["made_usec"] > 1e15 for s in json.load(sys.stdin))'
assert_match "$(busctl get-property org.holm1 "/org/holm1/container/$name" org.holm1.Container Snapshots)" '^a\(st\) 2 '
assert_eq running "$(holmctl show "$name" -p State --value)" "state after a snapshot"

# Clones of it as it runs and as it was: their file systems are clean, their files of one moment.
assert_match "$(holmctl clone "$name" "${name}c" 2>&1)" "^${name}c"$'\n'".* held still for "
holmctl clone --snapshot first "$name" "${name}d" >/dev/null
assert_eq shop "$(holmctl show "${name}c" -p Labels --value | grep -o shop)" "a clone is defined alike"
assert_eq created "$(holmctl show "${name}c" -p State --value)" "state of a clone"
for clone in "${name}c" "${name}d"; do
    id=$(holmctl show "$clone" -p Id --value)
    thin=$(holmctl device list --json | python3 -c 'import json, sys; print(*[d["thin_id"] for d in json.load(sys.stdin) if d["id"] == "container:" + sys.argv[1]])' "$id")
    dmsetup message holm-pool 0 "create_snap 16000000 $thin"
    pool=$(dmsetup info -c --noheadings --separator : -o major,minor holm-pool)
    dmsetup create --noudevsync holm_look --table "0 $((20 * 1024 * 1024 * 2)) thin $pool 16000000"
    look=/dev/dm-$(dmsetup info -c --noheadings -o minor holm_look)
    # Its journal is as a power cut would leave it, or better: after the replay nothing is wrong.
    e2fsck -fp "$look" >/run/fsck.out 2>&1 || [ $? -le 1 ] || { cat /run/fsck.out; fail "the file system of $clone is damaged"; }
    e2fsck -fn "$look" >/run/fsck.out 2>&1 || { cat /run/fsck.out; fail "the file system of $clone is damaged"; }
    debugfs -R 'cat /rootfs/b' "$look" 2>/dev/null >/run/b
    debugfs -R 'cat /rootfs/a' "$look" 2>/dev/null >/run/a
    assert_match "$(cat /run/b)" '^[0-9]+$' "what $clone has"
    a=$(cat /run/a) b=$(cat /run/b)
    [ "$a" -eq "$b" ] || [ "$a" -eq $((b + 1)) ] || fail "files of different moments: $a and $b"
    dmsetup remove --noudevsync --retry holm_look
    dmsetup message holm-pool 0 "delete 16000000"
done

# A clone is a container of its own.
holmctl start "${name}c"
holmctl exec "${name}c" sh -c 'echo own >/own'
refute holmctl exec "$name" test -e /own
assert_eq "${name}c" "$(holmctl exec "${name}c" hostname)" "host name of a clone"

# The way back: refused while it runs; what came later is gone; the snapshot stays.
assert_match "$(holmctl rollback "$name" first 2>&1)" "is running: stop it first"
holmctl exec "$name" touch /later
holmctl stop "$name"
holmctl rollback "$name" first
holmctl rollback "$name" first
holmctl start "$name"
refute holmctl exec "$name" test -e /later
holmctl stop "$name"
holmctl start "$name"; holmctl exec "$name" touch /kept; holmctl stop "$name"; holmctl start "$name"
holmctl exec "$name" test -e /kept || fail "what was written after the way back is gone"

# Wrong calls change nothing.
assert_match "$(holmctl snapshot "$name" first 2>&1)" "has a snapshot 'first' already: choose another name, or remove it"
assert_match "$(holmctl rollback "$name" never 2>&1)" "has no snapshot 'never': 'holmctl snapshot --list $name' shows them"
assert_match "$(holmctl clone "$name" "${name}c" 2>&1)" "is in use"
assert_match "$(holmctl clone --snapshot never "$name" "${name}x" 2>&1)" "has no snapshot 'never'"
assert_match "$(holmctl snapshot "$name" 'no/good' 2>&1)" "snapshot name"
assert_match "$(holmctl snapshot --remove "$name" 2>&1)" "NAME"
assert_match "$(busctl call org.holm1 "/org/holm1/container/$name" org.holm1.Container Clone 'sa{sv}' x 1 Snapshott s first 2>&1)" "unknown option 'Snapshott'"
assert_match "$(busctl call org.holm1 "/org/holm1/container/$name" org.holm1.Container Rollback s never 2>&1)" "no snapshot"

# Removing one leaves the others; a restart of the daemon forgets none; removing the container takes them all.
holmctl snapshot --remove "$name" "$made"
systemctl restart holmd
assert_eq first "$(holmctl snapshot --list --no-legend "$name" | awk '{ print $1 }')" "what is left"

# What it may use, changed while it runs and for good.
holmctl update --memory 64M --cpus 0.5 --pids-limit 50 "$name"
assert_eq 67108864 "$(unit_property "holm-$name.scope" MemoryMax)"
assert_eq 50 "$(unit_property "holm-$name.scope" TasksMax)"
holmctl update --memory none "$name"
assert_eq infinity "$(unit_property "holm-$name.scope" MemoryMax)"
before=$(holmctl show "$name" -p Size --value)
holmctl update --size 14G "$name"
assert_eq $((14 << 30)) "$(holmctl show "$name" -p Size --value)" "the new size (was $before)"
blocks=$(holmctl exec "$name" sh -c 'df -k / | tail -n 1' | awk '{ print $2 }')
[ "$blocks" -gt $((13 << 20)) ] || fail "the file system has $blocks KiB"
assert_match "$(holmctl update --size 11G "$name" 2>&1)" "14G" "a root cannot become smaller"
assert_match "$(holmctl update "$name" 2>&1)" "nothing is to be changed"
holmctl restart "$name"
assert_eq 50 "$(unit_property "holm-$name.scope" TasksMax)" "limits after a restart"

holmctl rm -f "$name" "${name}c" "${name}d"
gone() { ! holmctl device list --no-legend | grep -E 'container:|snapshot:'; }
eventually 10 gone
