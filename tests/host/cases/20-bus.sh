#!/bin/bash
# guest: shared
# The bus interface: what there is, and every wrong call a named error that changes nothing.

manager() { busctl call org.holm1 /org/holm1 org.holm1.Manager "$@"; }
refused() { # refused ERROR CALL…: the call fails with that name and leaves everything as it was
    local error=$1; shift
    local before after
    before=$(state)
    if busctl --json=short call org.holm1 "$@" >/tmp/out 2>/tmp/err; then fail "should be refused: $*"; fi
    after=$(state)
    assert_eq "$before" "$after" "state after a refused call ($*)"
    test -s /tmp/err || fail "no text in the error of $*"
    grep -q "$error" /tmp/err || fail "wanted '$error' from $*, got: $(cat /tmp/err)"
}
state() { manager ListContainers; manager ListImages; dmsetup ls | sort; }

busctl introspect org.holm1 /org/holm1 >/tmp/introspect
for member in CreateContainer RunContainer ListContainers GetContainer GetContainerByPID RemoveContainer ImportImage ListImages TagImage RemoveImage ContainerNew JobRemoved Version Driver; do
    grep -q "^\.$member" /tmp/introspect || fail "Manager has no $member"
done
busctl tree org.holm1 | grep -q /org/holm1/image/busybox || fail "no object for the image"
python3 - <<'P' || fail "introspection of nodes that only lead to others"
import subprocess, xml.etree.ElementTree as xml
def children(path):
    text = subprocess.run(["busctl", "call", "--json=short", "org.holm1", path, "org.freedesktop.DBus.Introspectable", "Introspect"], check=True, capture_output=True, text=True).stdout
    import json
    node = xml.fromstring(json.loads(text)["data"][0])
    assert not node.findall("node/*"), f"{path} tells more than the names of its children"
    return [child.get("name") for child in node.findall("node")]
assert children("/") == ["org"] and children("/org") == ["holm1"]
assert "deviceset" in children("/org/holm1") and "image" in children("/org/holm1")
assert "busybox" in children("/org/holm1/image") and children("/org/holm1/image/busybox") == []
P
assert_eq 's "thin"' "$(busctl get-property org.holm1 /org/holm1 org.holm1.Manager Driver)" "the driver"

timeout 20 busctl monitor --json=short org.holm1 >/tmp/monitor 2>/dev/null &
monitor=$!
listens() { busctl call org.holm1 /org/holm1 org.freedesktop.DBus.Peer Ping; test -s /tmp/monitor; }
eventually 5 listens
name=bus-$$
manager RunContainer 'ssa{sv}' "$name" busybox 1 Command as 2 sleep 1000 >/tmp/run
grep -q "/org/holm1/container/bus_2d$$" /tmp/run || fail "RunContainer answered $(cat /tmp/run)"
now() { holmctl show "$name" -p State --value; }; eventually_eq 10 running now
path=/org/holm1/container/bus_2d$$
assert_eq "s \"running\"" "$(busctl get-property org.holm1 "$path" org.holm1.Container State)" "State"
busctl tree org.holm1 >/tmp/tree 2>/tmp/err
assert_eq "" "$(cat /tmp/err)" "busctl tree on standard error"
for object in "$path" /org/holm1/image/busybox /org/holm1/deviceset; do grep -q "$object\$" /tmp/tree || fail "the tree lacks $object: $(cat /tmp/tree)"; done
manager ListContainers | grep -q "\"$name\" \"running\" \"busybox\" \"holm-$name.scope\" \"$path\"" || fail "ListContainers: $(manager ListContainers)"
leader=$(holmctl show "$name" -p Leader --value)
manager GetContainerByPID u "$leader" | grep -q "$path" || fail "GetContainerByPID"

# What cases before left to the remover is gone.
only_its_own() { [ "$(dmsetup ls | grep -c '^holm-')" -eq 2 ]; }
eventually 20 only_its_own
refused "in use" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' "$name" busybox 0
refused "no image" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' x no-such-image 0
refused "not a valid container name" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' '../x' busybox 0
refused "NoSuchKey" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' x busybox 1 NoSuchKey s y
refused "MemoryMax" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' x busybox 1 MemoryMax s lots
refused "Network" /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' x busybox 1 Network s moon
refused "no container" /org/holm1 org.holm1.Manager GetContainer s nobody
refused "running" "$path" org.holm1.Container Start 'a{sv}' 0
refused "not in\|is in no container\|in no container" /org/holm1 org.holm1.Manager GetContainerByPID u 1
refused "in use" /org/holm1 org.holm1.Manager RemoveImage 'sa{sv}' busybox 0

# The names of the errors, which busctl does not show.
names=$(python3 - "$name" <<'P'
import subprocess, sys
def error(*call):
    out = subprocess.run(["dbus-send", "--system", "--print-reply", "--dest=org.holm1", "/org/holm1", *call], capture_output=True, text=True)
    return out.stderr.split(":")[0].replace("Error ", "").strip()
print(error("org.holm1.Manager.GetContainer", "string:nobody"))
print(error("org.holm1.Manager.GetImage", "string:nobody"))
print(error("org.holm1.Manager.TagImage", "string:busybox", "string://"))
P
)
assert_eq "org.holm1.Error.NoSuchContainer
org.holm1.Error.NoSuchImage
org.holm1.Error.InvalidName" "$names" "error names"

holmctl rm --force "$name"
if busctl tree org.holm1 | grep -q "$path"; then fail "the tree still has $path"; fi
eventually 5 grep -q ContainerRemoved /tmp/monitor
kill "$monitor" 2>/dev/null; wait "$monitor" 2>/dev/null || true
for member in ContainerNew JobNew JobRemoved ContainerRemoved PropertiesChanged InterfacesAdded InterfacesRemoved; do
    grep -q "\"member\":\"$member\"" /tmp/monitor || fail "no signal $member was seen"
done

# Anybody may read, nobody but root may change without polkit's leave.
runuser -u nobody -- busctl call org.holm1 /org/holm1 org.holm1.Manager ListContainers >/dev/null || fail "nobody cannot read"
if runuser -u nobody -- busctl call org.holm1 /org/holm1 org.holm1.Manager CreateContainer 'ssa{sv}' x busybox 0 2>/tmp/err; then
    fail "nobody may create"
fi
