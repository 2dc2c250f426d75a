#!/bin/bash
# guest: shared
# What is signalled over a container's life, in which order and with which values, as docs/dbus.md says.

timeout 50 busctl monitor --json=short org.holm1 >/tmp/monitor 2>/dev/null &
monitor=$!
listens() { busctl call org.holm1 /org/holm1 org.freedesktop.DBus.Peer Ping; test -s /tmp/monitor; }
eventually 5 listens
name=sig$$
holmctl create --name "$name" --stop-timeout 5 busybox sh -c 'trap "exit 4" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
# Its first process heeds a signal only once it has a handler for it: pid_namespaces(7).
ups() { test "$(holmctl logs "$name" | grep -c up)" -eq "$1"; }
holmctl start "$name"
eventually 5 ups 1
holmctl freeze "$name"
holmctl thaw "$name"
holmctl restart "$name"
eventually 5 ups 2
holmctl stop "$name"
holmctl rename "$name" "${name}b"
holmctl rm "${name}b"
assert_eq 3 "$(holmctl run --rm --name "${name}c" busybox sh -c 'exit 3' || echo $?)" "status"
holmctl run --name "${name}d" busybox no-such-command 2>/dev/null || true
holmctl rm "${name}d"
gone() { grep ContainerRemoved /tmp/monitor | grep -q "${name}d"; }
eventually 5 gone
# The pool's numbers follow when they like.
last() { grep -v '"/org/holm1/deviceset"' /tmp/monitor | tail -n 1 | grep -q InterfacesRemoved; }
eventually 5 last
kill "$monitor"; wait "$monitor" 2>/dev/null || true

python3 - "$name" <<'P' >/tmp/got
import json, sys
name, jobs = sys.argv[1], {}
def plain(value):
    return plain(value["data"]) if isinstance(value, dict) and "data" in value else value
def shown(key, value):
    value = plain(value)
    # What differs from run to run is shown as there or not.
    if key.endswith("USec") or key in ("Leader", "ControlGroup", "Message"):
        return key if value else f"no {key}"
    return f"{key}={value}"
for line in open("/tmp/monitor"):
    message = json.loads(line)
    if message["type"] != "signal" or not message["path"].startswith("/org/holm1"):
        continue
    data, member = message["payload"]["data"], message["member"]
    path = data[0] if member in ("InterfacesAdded", "InterfacesRemoved") else message["path"]
    subject = path.removeprefix("/org/holm1").replace(name, "web").strip("/")
    if subject.startswith(("deviceset", "image")):
        continue
    if subject.startswith("job/"):
        subject = "job"
    if member == "PropertiesChanged":
        assert not data[2], "every value comes with its change"
        details = " ".join(sorted(shown(*item) for item in data[1].items()))
    elif member in ("InterfacesAdded", "InterfacesRemoved"):
        details = " ".join(data[1])
    elif member == "JobRemoved":
        details = f"{data[2].replace(name, 'web')} {data[3]}"
    elif member == "JobNew":
        details = ""
    else:
        details = " ".join(str(item).replace(name, "web") for item in data if not str(item).startswith("/"))
    print(f"{subject} {member} {details}".strip())
P
job() { # job SUBJECT LINE… : what a job that did LINE… looks like
    local subject=$1; shift
    printf '%s\n' "job InterfacesAdded org.holm1.Job" "JobNew" "$@" "job PropertiesChanged Result=done" "JobRemoved $subject done" "job InterfacesRemoved org.holm1.Job"
}
c='container/web'
{
    printf '%s\n' "$c InterfacesAdded org.holm1.Container" "ContainerNew web"
    job web "$c PropertiesChanged StartedUSec State=starting" "$c PropertiesChanged ControlGroup Leader State=running"
    printf '%s\n' "$c PropertiesChanged State=frozen" "$c PropertiesChanged State=running"
    job web "$c PropertiesChanged State=stopping" \
        "$c PropertiesChanged ExitStatus=4 Result=exit-code State=starting StoppedUSec no ControlGroup no Leader" "$c Exited 4 exit-code" \
        "$c PropertiesChanged StartedUSec" \
        "$c PropertiesChanged ControlGroup ExitStatus=-1 Leader Result=none State=running"
    job web "$c PropertiesChanged State=stopping" \
        "$c PropertiesChanged ExitStatus=4 Result=exit-code State=stopped StoppedUSec no ControlGroup no Leader" "$c Exited 4 exit-code"
    printf '%s\n' "$c InterfacesRemoved org.holm1.Container" "ContainerRemoved web" "${c}b InterfacesAdded org.holm1.Container" "ContainerNew webb"
    job webb "${c}b InterfacesRemoved org.holm1.Container" "ContainerRemoved webb"
    printf '%s\n' "${c}c InterfacesAdded org.holm1.Container" "ContainerNew webc"
    job webc "${c}c PropertiesChanged StartedUSec State=starting" "${c}c PropertiesChanged ControlGroup Leader State=running"
    printf '%s\n' "${c}c PropertiesChanged ExitStatus=3 Result=exit-code State=failed StoppedUSec no ControlGroup no Leader" "${c}c Exited 3 exit-code" \
        "${c}c InterfacesRemoved org.holm1.Container" "ContainerRemoved webc"
    printf '%s\n' "${c}d InterfacesAdded org.holm1.Container" "ContainerNew webd"
    job webd "${c}d PropertiesChanged StartedUSec State=starting" "${c}d PropertiesChanged State=failed StatusText='no-such-command' was not found in the container StoppedUSec" |
        sed 's/^job PropertiesChanged Result=done/job PropertiesChanged Error=org.holm1.Error.CommandNotFound Message Result=failed/; s/^JobRemoved webd done/JobRemoved webd failed/'
    job webd "${c}d InterfacesRemoved org.holm1.Container" "ContainerRemoved webd"
} >/tmp/wanted
diff -u /tmp/wanted /tmp/got || fail "the signals are not as docs/dbus.md says"
