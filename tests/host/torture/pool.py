"""The pool, read past the daemon: its metadata with the kernel's tools, devices through throw-away copies that never touch it."""
import contextlib
import hashlib
import json
import os
import re

from holm import Refused, run

DIRECTORY = "/var/lib/holm/pool"
POOL = "holm-pool"
TREE = "rootfs"
# Devices of the pool's own, which nobody is shown.
HIDDEN = ("ballast", "table")
# Above every number that a pool of ours comes to in a test.
FOREIGN = (5000000, 5000001)


def committed():
    """Makes the kernel write what it knows of the pool."""
    return run("dmsetup", "status", POOL)


def thin_ids():
    """Every number in the pool."""
    committed()
    return {int(number) for number in re.findall(r'<device dev_id="(\d+)"', run("thin_dump", f"{DIRECTORY}/metadata"))}


def check_metadata():
    committed()
    run("thin_check", f"{DIRECTORY}/metadata")


def recorded():
    """thin id -> device, as the journal has it: those that are there or are being made or removed."""
    found = {}
    with open(f"{DIRECTORY}/journal") as file:
        for line in file:
            try:
                entry = json.loads(line.split(" ", 1)[1])
            except (ValueError, IndexError):
                continue
            if entry["op"] == "create":
                found[entry["thin"]] = entry
            elif entry["op"] == "keep":
                found[entry["device"]["thin"]] = entry["device"]
            elif entry["op"] in ("aborted", "deleted"):
                found.pop(entry["thin"], None)
    return found


def plant_foreign():
    """Devices in the pool that are on no record and never were: nobody may delete them."""
    for number in FOREIGN:
        if number not in thin_ids():
            run("dmsetup", "message", POOL, "0", f"create_thin {number}")


@contextlib.contextmanager
def scratch():
    """A device that takes what is written to throw-away copies, gone with them."""
    path = "/run/torture-scratch"
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    loop = run("losetup", "-f", "--show", path).strip()
    try:
        yield loop
    finally:
        run("losetup", "-d", loop)
        os.unlink(path)


def _number(name):
    """`major:minor` of a device-mapper device; links below /dev/mapper are not made for all."""
    return run("dmsetup", "info", "-c", "--noheadings", "--separator", ":", "-o", "major,minor", name).strip()


def _create(name, table):
    run("dmsetup", "create", name, "--noudevsync", "--noudevrules", "--table", table)
    return _number(name)


def _remove(name):
    run("dmsetup", "remove", "--noudevsync", "--noudevrules", "--retry", name)


@contextlib.contextmanager
def copy_of(device, loop):
    """A throw-away copy of an inactive device (as `recorded` has it): its path. The pool sees only reads."""
    origin, copied = f"torture-{device['thin']}", f"torture-{device['thin']}-copy"
    sectors = device["size"] // 512
    below = _create(origin, f"0 {sectors} thin {_number(POOL)} {device['thin']}")
    try:
        # A head of zeros begins the store anew.
        with open(loop, "r+b") as store:
            store.write(bytes(4096))
        number = _create(copied, f"0 {sectors} snapshot {below} {loop} N 8")
        try:
            yield f"/dev/dm-{number.split(':')[1]}"
        finally:
            _remove(copied)
    finally:
        _remove(origin)


def digests(node, paths):
    """path -> hash of that file in the tree of a file system (None: no such file), after its journal was replayed; the file system is sound."""
    where = "/run/torture-mount"
    os.makedirs(where, exist_ok=True)
    run("mount", "-o", "noatime", node, where)
    try:
        found = {path: _digest(f"{where}/{TREE}{path}") for path in paths}
    finally:
        run("umount", where)
    run("e2fsck", "-fn", node)
    return found


def _digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"cannot read {path}: {error}") from error
