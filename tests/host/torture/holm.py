"""How the storm and the check talk to Holm, and to the kernel below it."""
import json
import subprocess


class Refused(Exception):
    """A command that should have been done was not."""


def run(*command, seconds=60, **options):
    """Standard output of a command that must end well."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, **options)
    except subprocess.TimeoutExpired as error:
        raise Refused(f"hung for {seconds} s: {' '.join(command)}") from error
    if done.returncode:
        raise Refused(f"status {done.returncode}: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def listing(*words):
    return json.loads(run("holmctl", *words, "--json", seconds=20))


def verbs():
    """The verbs that this holmctl has."""
    return {line.split()[0] for line in run("holmctl", "--help").splitlines() if line.startswith("  ") and line.split()}


def containers():
    """name -> properties."""
    return {one["name"]: one for one in listing("list", "--all")}


def images():
    return {one["name"]: one for one in listing("image", "list")}


def devices():
    """id -> listing of the device."""
    return {one["id"]: one for one in listing("device", "list")}


def snapshots(container):
    """Names of the snapshots of a container."""
    return {one["name"] for one in listing("snapshot", "--list", container)}


def image_devices(names):
    """Name → the device of its top layer."""
    return {one["Name"]: one["Device"] for one in listing("image", "inspect", *names)} if names else {}
