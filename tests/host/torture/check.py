"""After a boot: is everything there that was acknowledged, and nothing else?"""
import random
import time

import holm
import model
import pool

# Of devices that did not change since the last boot, so many are read again.
SAMPLE = 3


class Findings:
    """What is wrong, by kind."""

    def __init__(self):
        self.kinds = {"lost": [], "came back": [], "contents": [], "unsound": [], "leaked": [], "foreign deleted": [], "foreign": [], "refused": []}

    def add(self, kind, text):
        self.kinds[kind].append(text)

    def lines(self):
        return [f"{kind}: {text}" for kind, texts in self.kinds.items() for text in texts]

    def counts(self):
        return {kind: len(texts) for kind, texts in self.kinds.items()}


class There:
    """What there is, as the daemon says it, with the contents of devices as the disk says them."""

    def __init__(self, loop):
        self.loop = loop
        verbs = holm.verbs()
        self.containers, self.images, self.devices = holm.containers(), holm.images(), holm.devices()
        roots = [one for one in self.devices.values() if one["id"].startswith("container:")]
        self.of = {use: one["id"] for one in roots for use in one["of"] if use.startswith("container ")}
        self.of.update({f"image {name}": device for name, device in holm.image_devices(self.images).items()})
        self.snapshots = {}
        for container in self.containers:
            root = self.of.get(f"container {container}", "").removeprefix("container:")
            self.snapshots[container] = holm.snapshots(container) if "snapshot" in verbs else set()
            self.of.update({f"snapshot {container} {label}": f"snapshot:{root}:{label}" for label in self.snapshots[container]})
        self.records = pool.recorded()
        self.known = {}

    def read(self, use, paths, findings):
        """path -> hash in the root of `container NAME` or `image NAME`; every path that was ever asked for is read at once."""
        known = self.known.get(use)
        if known is None or not set(paths) <= set(known):
            listed = self.devices.get(self.of[use])
            device = listed and self.records.get(listed["thin_id"])
            if device is None:
                findings.add("lost", f"{use}: its device is not {'in the journal' if listed else 'listed'}")
                return None
            try:
                with pool.copy_of(device, self.loop) as node:
                    known = self.known[use] = pool.digests(node, paths)
            except holm.Refused as error:
                findings.add("unsound", f"{use} (thin device {device['thin']}): {error}")
                return None
        return known


def settle(there, candidates, worker, findings, changed):
    """The first of the candidate states that agrees with what is there; else what is wrong with the one that comes nearest."""
    nearest = None
    for state in candidates:
        found = Findings()
        # One with the same names is nearer, however much is wrong in them.
        distance = (not compare(there, state, worker, found, changed, candidates), len(found.lines()))
        if not found.lines():
            return state
        if nearest is None or distance <= nearest[0]:
            nearest = (distance, found)
    for kind, texts in nearest[1].kinds.items():
        for text in texts:
            findings.add(kind, text)
    return candidates[0]


def compare(there, state, worker, findings, changed, candidates):
    """Adds what is wrong if this is the state. Whether the names agree; contents are looked at only then."""
    for kind, actual in (("containers", there.containers), ("images", there.images)):
        wanted = state[kind]
        mine = {name for name in actual if name.startswith(f"{worker}-")}
        for name in sorted(set(wanted) - mine):
            findings.add("lost", f"{kind[:-1]} {name}")
        for name in sorted(mine - set(wanted)):
            findings.add("came back", f"{kind[:-1]} {name}")
    for name, one in state["containers"].items():
        there_too = there.snapshots.get(name, set())
        for label in sorted(set(one["labels"]) - there_too):
            findings.add("lost", f"snapshot {label} of container {name}")
        for label in sorted(there_too - set(one["labels"])):
            findings.add("came back", f"snapshot {label} of container {name}")
    if findings.lines():
        return False
    for use, tree in trees(state):
        # A snapshot is looked at when its container is.
        if " ".join(use.split(" ")[:2]).replace("snapshot ", "container ") not in changed:
            continue
        if use not in there.of:
            findings.add("lost", f"{use} has no device")
            continue
        found = there.read(use, all_paths(candidates, use), findings)
        for path, token in tree.items():
            wanted = token and model.digest(token)
            if found is not None and found[path] != wanted:
                findings.add("contents", f"{use}: {path} is {'not there' if found[path] is None else 'wrong'}, wanted {token}")
    return True


def trees(state):
    """What has a tree, as a use of a device, and what must be in it."""
    for name, one in state["containers"].items():
        yield f"container {name}", one["tree"]
        for label, tree in one["labels"].items():
            yield f"snapshot {name} {label}", tree
    for name, tree in state["images"].items():
        yield f"image {name}", tree


def all_paths(candidates, use):
    return {path for state in candidates for found, tree in trees(state) if found == use for path in tree}


def accounts(findings):
    """Every number in the pool is on record, and every record is used: waits a little for the deletions that recovery takes up."""
    until = time.monotonic() + 20
    while True:
        in_pool = pool.thin_ids()
        records = pool.recorded()
        listed = {one["thin_id"] for one in holm.devices().values()}
        kept = {thin for thin, device in records.items() if device["id"] in pool.HIDDEN}
        surplus = in_pool - listed - kept - set(pool.FOREIGN)
        if not surplus or time.monotonic() > until:
            break
        time.sleep(0.1)
    for thin in sorted(surplus):
        device = records.get(thin)
        findings.add("leaked" if device else "foreign", f"thin device {thin} ({device['id'] if device else 'on no record'}) of the pool is not listed")
    for thin in sorted(listed - in_pool):
        findings.add("lost", f"thin device {thin} is listed but not in the pool")
    for thin in sorted(set(pool.FOREIGN) - in_pool):
        findings.add("foreign deleted", f"thin device {thin}")


def uses(there, findings):
    """Every device is the root of a container, or a layer of an image, or below one of these."""
    used, devices = {"base"}, there.devices
    tops = set(there.of.values())
    for one in devices.values():
        if one["id"] in tops:
            below = one["id"]
            while below and below not in used:
                used.add(below)
                below = devices[below]["base"] if below in devices else None
    for name in there.containers:
        if f"container {name}" not in there.of:
            findings.add("lost", f"container {name} has no device")
    for name in there.images:
        if f"image {name}" not in there.of:
            findings.add("lost", f"image {name} has no device")
    for unused in sorted(set(devices) - used):
        findings.add("leaked", f"device {unused} is nobody's")


def check(workers, seed, whole):
    """`workers`: worker -> (candidate states, names that changed). Gives back the state that is there, and what is wrong with it."""
    findings = Findings()
    accounts(findings)
    try:
        pool.check_metadata()
    except holm.Refused as error:
        findings.add("unsound", str(error))
    chance = random.Random(seed)
    with pool.scratch() as loop:
        there = There(loop)
        uses(there, findings)
        for name in sorted(list(there.containers) + list(there.images)):
            if name not in ("busybox", "debian") and name.split("-")[0] not in workers:
                findings.add("came back", name)
        settled = []
        for worker, (candidates, changed) in workers.items():
            every = {f"container {name}" for state in candidates for name in state["containers"]} | {f"image {name}" for state in candidates for name in state["images"]}
            rest = sorted(every - changed)
            chosen = every if whole else changed | set(chance.sample(rest, min(SAMPLE, len(rest))))
            settled.append(settle(there, candidates, worker, findings, chosen))
    return model.joined(settled), findings
