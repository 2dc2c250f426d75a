#!/bin/bash
# guest: shared
# What is on the bus is what dbus/*.xml says, for one object of each kind, and GetManagedObjects has the same objects and properties.

holmctl run -d --name contract-$$ busybox sleep 1000 >/dev/null
container=/org/holm1/container/contract_2d$$
# A process, and a job that takes a while: the payload does not listen to SIGTERM, being process 1.
timeout 60 holmctl exec contract-$$ sleep 1000 </dev/null &
exec=$!
there() { busctl tree --list org.holm1 | grep -q "$container/process/"; }
eventually 10 there
timeout 60 holmctl stop -t 30 contract-$$ &
stop=$!
busy() { busctl tree --list org.holm1 | grep -q /org/holm1/job/; }
eventually 10 busy

python3 - "$container" <<'P' || fail "the bus is not as dbus/*.xml says"
import json, subprocess, sys, xml.etree.ElementTree as xml

def call(path, interface, member, *arguments):
    words = ["busctl", "--json=short", "call", "org.holm1", path, interface, member, *arguments]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)["data"]

def argument(arg, direction):
    return arg.get("name"), arg.get("type"), arg.get("direction", direction)

def normalised(interface):
    """Members with all that counts, in no particular order."""
    members = {}
    for member in interface:
        if not isinstance(member.tag, str) or member.tag == "annotation":
            continue
        direction = "in" if member.tag == "method" else None
        arguments = [argument(arg, direction) for arg in member.findall("arg")]
        notes = {note.get("name"): note.get("value") for note in member.findall("annotation")}
        members[member.tag, member.get("name")] = arguments, member.get("type"), member.get("access"), notes
    return members

def introspect(path):
    return xml.fromstring(call(path, "org.freedesktop.DBus.Introspectable", "Introspect")[0])

def walk(path):
    yield path
    for child in introspect(path).findall("node"):
        yield from walk(f"{path.rstrip('/')}/{child.get('name')}")

def contract(name):
    return xml.parse(f"/usr/share/dbus-1/interfaces/{name}.xml").getroot().find("interface")

failures, seen, ours = [], set(), {}
for path in walk("/"):
    for interface in introspect(path).findall("interface"):
        name = interface.get("name")
        if not name.startswith("org.holm1."):
            continue
        seen.add(name)
        ours.setdefault(path, set()).add(name)
        live, said = normalised(interface), normalised(contract(name))
        failures += [f"{path} {name} {key}: live {live.get(key)}, in the file {said.get(key)}" for key in live.keys() | said.keys() if live.get(key) != said.get(key)]
        # What introspection says can be read is what GetAll gives, in the types that it says.
        values = call(path, "org.freedesktop.DBus.Properties", "GetAll", "s", name)[0]
        types = {key: value["type"] for key, value in values.items()}
        said = {key[1]: value[1] for key, value in live.items() if key[0] == "property"}
        if types != said:
            failures.append(f"{path} {name}: GetAll has {types}, introspection {said}")
every = {f"org.holm1.{kind}" for kind in ("Manager", "Container", "Process", "Image", "Job", "DeviceSet")}
if seen != every:
    failures.append(f"not met: {every - seen}, not known: {seen - every}")
managed = call("/org/holm1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")[0]
del ours["/org/holm1"]
if {path: set(interfaces) for path, interfaces in managed.items()} != ours:
    failures.append(f"GetManagedObjects has {managed.keys()}, the tree {ours.keys()}")
if sys.argv[1] not in managed:
    failures.append("the container is not managed")
print("\n".join(failures), file=sys.stderr)
sys.exit(bool(failures))
P

holmctl kill -s KILL contract-$$
wait "$stop" || fail "stop: status $?"
wait "$exec" || true
holmctl rm contract-$$
