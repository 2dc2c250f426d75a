"""One worker of the storm: steps on containers and images of its own, one after another."""
import hashlib
import io
import json
import os
import tarfile

import holm
import model

CONTAINERS, IMAGES, SNAPSHOTS = 5, 2, 4
# A payload that ends when it is asked to.
PAYLOAD = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done']


class Worker:
    def __init__(self, name, chance, state, ledger, boot, verbs):
        self.name, self.chance, self.state, self.boot, self.verbs = name, chance, state, boot, verbs
        self.ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.running, self.count = set(), 0

    def run(self):
        try:
            while True:
                self.do(self.next_step())
        except holm.Refused as error:
            self.note({"refused": str(error)})

    def note(self, entry):
        os.write(self.ledger, (json.dumps(entry) + "\n").encode())
        os.fsync(self.ledger)

    def do(self, step):
        """Notes a step, does it, notes that it was acknowledged."""
        self.note({"begin": step})
        getattr(self, "do_" + step["op"].replace("-", "_"))(step)
        self.note({"done": 1})
        self.state = model.applied(self.state, step)

    def fresh(self, what):
        self.count += 1
        return f"{self.name}-{what}{self.boot}-{self.count}"

    def token(self, longest):
        self.count += 1
        return f"{self.name}-{self.boot}-{self.count}:{self.chance.randrange(1, longest)}"

    # What to do next

    def next_step(self):
        """One of the steps that can be done now, by chance."""
        steps = [step for step, weight in self.possible() for _ in range(weight)]
        return self.chance.choice(steps)()

    def possible(self):
        containers, images = self.state["containers"], self.state["images"]
        stopped = sorted(set(containers) - self.running)
        running = sorted(self.running)
        unused = sorted(set(images) - {one["image"] for one in containers.values()})
        pick = self.chance.choice
        if len(containers) < CONTAINERS:
            yield lambda: {"op": "create", "name": self.fresh("c"), "image": pick(["busybox", *sorted(images)])}, 4
        if stopped:
            yield lambda: {"op": "start", "name": pick(stopped)}, 3
            yield lambda: {"op": "rm", "name": pick(stopped)}, 2 if len(containers) > CONTAINERS // 2 else 1
            yield lambda: {"op": "rename", "name": pick(stopped), "to": self.fresh("r")}, 1
        if running:
            yield lambda: {"op": "write", "name": pick(running), "path": f"/w{self.boot}-{self.count}", "token": self.token(400000)}, 6
            yield lambda: {"op": "stop", "name": pick(running)}, 2
            yield lambda: {"op": "rm", "name": pick(running)}, 1
        if len(images) < IMAGES:
            yield lambda: {"op": "import", "name": self.fresh("i"), "tree": {f"/unique{n}": self.token(600000) for n in range(self.chance.randrange(1, 3))}}, 2
        if unused:
            yield lambda: {"op": "image-rm", "name": pick(unused)}, 1
        for verb, steps in self.optional().items():
            if verb in self.verbs and containers:
                yield from steps(sorted(containers), stopped)

    def optional(self):
        """Steps of verbs that this holmctl may not have: verb -> what there is to do, of all containers and of those that do not run."""
        containers, pick = self.state["containers"], self.chance.choice
        room = len(containers) < CONTAINERS
        labels = lambda names: sorted((name, label) for name in names for label in containers[name]["labels"])

        def labelled(op, names, **more):
            name, label = pick(labels(names))
            return {"op": op, "name": name, "label": label, **more}

        def clone(every, stopped):
            if room:
                yield lambda: {"op": "clone", "name": pick(every), "to": self.fresh("k")}, 3
            if room and labels(every):
                yield lambda: labelled("clone", every, to=self.fresh("k")), 2

        def snapshot(every, stopped):
            if len(labels(every)) < SNAPSHOTS:
                yield lambda: {"op": "snapshot", "name": pick(every), "label": self.fresh("s")}, 3
            if labels(every):
                yield lambda: labelled("unsnapshot", every), 1

        def rollback(every, stopped):
            if labels(stopped):
                yield lambda: labelled("rollback", stopped), 3

        return {"clone": clone, "snapshot": snapshot, "rollback": rollback}

    # How each is done

    def do_create(self, step):
        holm.run("holmctl", "create", "--name", step["name"], "--stop-timeout", "2", step["image"], *PAYLOAD)

    def do_start(self, step):
        holm.run("holmctl", "start", step["name"])
        self.running.add(step["name"])

    def do_stop(self, step):
        holm.run("holmctl", "stop", step["name"])
        self.running.discard(step["name"])

    def do_write(self, step):
        token = step["token"]
        script = f"yes {token} | head -c {token.rsplit(':', 1)[1]} | dd of={step['path']} bs=65536 conv=fsync 2>/dev/null"
        holm.run("holmctl", "exec", step["name"], "sh", "-c", script)

    def do_rm(self, step):
        holm.run("holmctl", "rm", "--force", step["name"])
        self.running.discard(step["name"])

    def do_rename(self, step):
        holm.run("holmctl", "rename", step["name"], step["to"])

    def do_clone(self, step):
        holm.run("holmctl", "clone", *(["--snapshot", step["label"]] if "label" in step else []), step["name"], step["to"])

    def do_snapshot(self, step):
        holm.run("holmctl", "snapshot", step["name"], step["label"])

    def do_unsnapshot(self, step):
        holm.run("holmctl", "snapshot", "--remove", step["name"], step["label"])

    def do_rollback(self, step):
        holm.run("holmctl", "rollback", step["name"], step["label"])

    def do_image_rm(self, step):
        holm.run("holmctl", "image", "rm", step["name"])

    def do_import(self, step):
        path = f"/run/torture-{self.name}.tar"
        archive(path, step["tree"])
        holm.run("holmctl", "image", "import", path, "--name", step["name"])
        os.unlink(path)


def archive(path, tree):
    """An OCI archive: busybox, and a layer above it for each file."""
    with open("/host/images/busybox.rootfs.tar", "rb") as file:
        layers = [file.read()]
    for name, token in tree.items():
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            add(tar, name.lstrip("/"), model.contents(token))
        layers.append(layer.getvalue())
    blobs = {}

    def blob(data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest, len(data)

    def described(kind, data):
        digest, size = blob(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}

    encode = lambda value: json.dumps(value).encode()
    descriptors = [described("layer.v1.tar", layer) for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in descriptors]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": described("config.v1+json", encode(config)), "layers": descriptors}
    index = {"schemaVersion": 2, "manifests": [described("manifest.v1+json", encode(manifest))]}
    with tarfile.open(path, "w") as tar:
        add(tar, "oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
        add(tar, "index.json", encode(index))
        for digest, data in blobs.items():
            add(tar, "blobs/" + digest.replace(":", "/"), data)


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
