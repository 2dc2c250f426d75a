#!/bin/bash
# guest: own
# timeout: 180
# Fifty at once: all run, and nothing of them is left.

scopes() { systemctl list-units --no-legend --plain 'holm-*.scope' | wc -l; }
nodes() { dmsetup ls | grep -c '^holm-' || true; }
loops=$(losetup -l -n | wc -l)
mounts=$(wc -l </proc/self/mountinfo)
for i in $(seq 50); do
    holmctl run --rm --name "many-$i" busybox sh -c 'echo up; sleep 1000' >"/tmp/many-$i" </dev/null 2>"/tmp/many-$i.err" &
done
for i in $(seq 50); do eventually 90 grep -q up "/tmp/many-$i"; done
assert_eq 50 "$(holmctl list --no-legend | grep -c running)" "containers that run"
assert_eq 50 "$(scopes)" "scopes"
assert_eq 51 "$(nodes)" "device-mapper nodes: fifty and the pool"
assert_eq "$mounts" "$(wc -l </proc/self/mountinfo)" "mounts of the host"
for i in $(seq 50); do holmctl kill --who all -s KILL "many-$i" & done
wait
now() { holmctl list --all --no-legend | wc -l; }; eventually_eq 30 0 now
now() { scopes; }; eventually_eq 10 0 now
now() { nodes; }; eventually_eq 10 1 now
assert_eq "" "$(ls /var/lib/holm/containers)" "records"
assert_eq "" "$(ls /run/holm/run)" "records of runs"
assert_eq "$loops" "$(losetup -l -n | wc -l)" "loop devices"
holmctl device list --no-legend | grep container && fail "devices are left"
true
