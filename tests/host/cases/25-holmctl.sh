#!/bin/bash
# guest: shared
# timeout: 90
# What people see of holmctl: listings, JSON, errors of one line, status, terminals, and the daemon started when it is needed.

name=see$$
json() { "$@" --json >/tmp/json || fail "status $?: $*"; python3 -m json.tool /tmp/json >/dev/null || fail "no JSON from $*: $(cat /tmp/json)"; }
refused() { # refused STATUS TEXT COMMAND… : one line that has TEXT, on standard error, and nothing on standard output
    local status=$1 text=$2; shift 2
    assert_status "$status" "$@" >/tmp/out 2>/tmp/err </dev/null
    assert_eq "" "$(cat /tmp/out)" "standard output of $*"
    assert_eq 1 "$(wc -l </tmp/err)" "lines of the error of $*: $(cat /tmp/err)"
    assert_has "$(cat /tmp/err)" "$text" "the error of $*"
}

assert_eq "No containers." "$(holmctl list --all)" "an empty list"
assert_eq "" "$(holmctl list --all --no-legend)" "an empty list without legend"
json holmctl list
assert_eq "[]" "$(cat /tmp/json)" "an empty list as JSON"
systemctl stop holmd
holmctl run -d --name "$name" --memory 64M --label app=shop --size 12G busybox sh -c 'echo hello; exec sleep 1000' >/dev/null
for verb in "list" "list --all" "image list" "image inspect busybox" "device list" "device status" "show $name" "doctor" "stats --no-stream"; do
    # shellcheck disable=SC2086
    json holmctl $verb
done
holmctl device list | grep -q "container $name\$" || fail "the container's device is not marked: $(holmctl device list)"

hello() { holmctl logs "$name" | grep -qx hello; }
eventually 5 hello
holmctl status "$name" >/tmp/status
leader=$(holmctl show "$name" -p Leader --value)
while IFS= read -r line; do
    grep -qE -- "$line" /tmp/status || fail "status lacks /$line/: $(cat /tmp/status)"
done <<X
^● $name \([0-9a-f]{32}\)\$
^ +State: running\$
^ +Since: .+ ago\$
^ +Leader: $leader \(sleep\)\$
^ +Image: busybox\$
^ +Command: sh -c 'echo hello; exec sleep 1000'\$
^ +Labels: app=shop\$
^ +OS: .+
^ +Unit: holm-$name.scope\$
^ +Tasks: [0-9]+
^ +Memory: .+ \(limit 64M\)\$
^ +CPU: .+
^ +Root: container:[0-9a-f]{32} \(thin device [0-9]+\), [0-9.]+M of 12G mapped, active\$
^ +CGroup: /holm.slice/holm-$name.scope\$
^ +├─payload\$
^ +│ └─$leader sleep 1000\$
^ +└─supervisor\$
^ +└─[0-9]+ .*holm-init
^[A-Z][a-z]{2} .* hello\$
X

refused 125 "holmctl list --all" holmctl status nobody
refused 125 "holmctl list --all" holmctl logs nobody
refused 125 "holmctl start" sh -c "holmctl create --name ${name}c busybox >/dev/null; holmctl exec ${name}c true"
refused 125 "see 'holmctl run --help'" holmctl run --memory much busybox
refused 125 "see 'holmctl image import --help'" holmctl image import
refused 125 "holmctl rm --force" holmctl rm "$name"
refused 125 "--name" sh -c 'tar -C /usr/lib/holm -c . | holmctl image import - 2>&1 >/dev/null | grep -v ^importing >&2; exit ${PIPESTATUS:-125}'
refused 127 "not found" holmctl exec "$name" no-such-command
refused 126 "cannot be run" holmctl exec "$name" /etc/passwd
holmctl rm "${name}c"

# Terminals: size and its change, input, ^C, leaving and coming back, a shell, a bar.
python3 - "$name" <<'P' || fail "terminals"
import fcntl, os, pty, select, struct, sys, termios, time

class Screen:
    def __init__(self, *command, rows=24, columns=80):
        self.text, self.seen = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execvp(command[0], command)
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, limit):
        if not select.select([self.fd], [], [], limit)[0]:
            raise TimeoutError(f"nothing came; there is: {self.text!r}")
        try:
            data = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:
            data = ""
        self.text += data
        return data

    def expect(self, text):
        while text not in self.text[self.seen:]:
            if not self.read(10):
                raise EOFError(f"{text!r} did not come: {self.text!r}")
        self.seen = self.text.index(text, self.seen) + len(text)

    def send(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        while self.read(10):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

name = sys.argv[1]
screen = Screen("holmctl", "run", "--rm", "-it", "busybox", "sh", rows=33, columns=101)
screen.expect("# ")
screen.send("stty size; echo $TERM\n")
screen.expect("33 101"), screen.expect("xterm")
screen.resize(20, 60)
screen.send("while [ \"$(stty size)\" != '20 60' ]; do :; done; echo now\n")
screen.expect("\nnow"), screen.expect("# ")
screen.send("exit 9\n")
assert screen.end() == 9

for mode in ["-it", "-i"]:
    screen = Screen("holmctl", "run", "--rm", mode, "busybox", "sh", "-c", "trap 'exit 5' INT; echo go; while :; do sleep 0.1; done")
    screen.expect("go")
    screen.send("\x03")
    assert screen.end() == 5, mode

screen = Screen("holmctl", "run", "--name", f"{name}t", "-it", "busybox", "sh")
screen.expect("# ")
screen.send("\x1d\x1d\x1d")
assert screen.end() == 0
screen = Screen("holmctl", "attach", f"{name}t")
screen.expect("leave it")
screen.send("echo b''ack\n")
screen.expect("back")
screen.send("exit 6\n")
assert screen.end() == 6

screen = Screen("holmctl", "shell", name)
screen.expect("# ")
screen.send("id -u; exit 3\n")
screen.expect("0\r\n")
assert screen.end() == 3

# The terminal goes away: so does holmctl, and the container stays.
screen = Screen("holmctl", "run", "--name", f"{name}u", "-it", "busybox", "sh")
screen.expect("# ")
os.close(screen.fd)
os.waitpid(screen.pid, 0)

archive = "/tmp/see.tar"
os.system(f"truncate -s 100M /tmp/see.file && tar -C /tmp -cf {archive} see.file && rm /tmp/see.file")
screen = Screen("holmctl", "image", "import", "--name", "see", archive, rows=24, columns=70)
assert screen.end() == 0
os.remove(archive)
*bars, last = screen.text.split("\r\x1b[K") if "\r\x1b[K" in screen.text else [screen.text]
assert "] " in screen.text and "% " in screen.text and last == "see\r\n", screen.text
lines = [line.removesuffix("\x1b[K") for line in screen.text.split("\r")]
assert max(map(len, lines)) < 70 and screen.text.count("\n") == 1, lines
P
assert_eq running "$(holmctl show "${name}u" -p State --value)" "a container whose user's terminal went away"
holmctl image rm see
holmctl rm -f "$name" "${name}t" "${name}u"

# A new container of a name does not show what a former one wrote.
holmctl run -d --name "$name" busybox true >/dev/null
holmctl wait "$name"
assert_eq "" "$(holmctl logs "$name")" "logs of a new container of a known name"
if holmctl status "$name" | grep -q ' hello$'; then fail "status shows a former container's lines"; fi
holmctl rm "$name"
holmctl logs "$name" | grep -qx hello || fail "what a container wrote is lost when it is gone"

# One process of many may go: yes | … | head.
assert_eq y "$(timeout 20 holmctl run --rm busybox yes 2>/dev/null | head -n 1)" "a reader that has enough"
holmctl list --all >/dev/full 2>/tmp/err && fail "a full disk is not noticed"
assert_eq 1 "$(wc -l </tmp/err)" "lines of the error"
