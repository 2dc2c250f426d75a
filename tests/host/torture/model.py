"""What must hold after a cut: pure, and replayed from the ledgers.

A state is plain JSON:
    {"containers": {name: {"image": name or None, "tree": {path: token or None}, "labels": {label: {path: token or None}}}},
     "images": {name: {path: token}}}
A token stands for the contents of a file (see `contents`), None says that there must be no such file; of paths that are not named nothing is known.
Each worker has names of its own (`w<number>-…`) and does one thing after another, so only the last line of its ledger may have half happened."""
import copy
import hashlib
import json

EMPTY = {"containers": {}, "images": {}}


def contents(token):
    """The bytes that a token `text:length` stands for: what `yes TOKEN | head -c LENGTH` prints."""
    line = (token + "\n").encode()
    length = int(token.rsplit(":", 1)[1])
    return (line * (length // len(line) + 1))[:length]


def digest(token):
    return hashlib.sha256(contents(token)).hexdigest()


def applied(state, step):
    """The state after a step."""
    state = copy.deepcopy(state)
    containers, images, name = state["containers"], state["images"], step.get("name")
    op = step["op"]
    if op == "create":
        image = step["image"]
        containers[name] = {"image": image, "tree": dict(images.get(image, {})), "labels": {}}
    elif op == "write":
        containers[name]["tree"][step["path"]] = step["token"]
    elif op == "rm":
        del containers[name]
    elif op == "rename":
        containers[step["to"]] = containers.pop(name)
    elif op == "clone":
        one = containers[name]
        tree = one["labels"][step["label"]] if "label" in step else one["tree"]
        containers[step["to"]] = {"image": one["image"], "tree": dict(tree), "labels": {}}
    elif op == "snapshot":
        containers[name]["labels"][step["label"]] = dict(containers[name]["tree"])
    elif op == "unsnapshot":
        del containers[name]["labels"][step["label"]]
    elif op == "rollback":
        container = containers[name]
        then = container["labels"][step["label"]]
        container["tree"] = {**{path: None for path in container["tree"]}, **then}
    elif op == "commit":
        images[step["image"]] = dict(containers[name]["tree"])
    elif op == "import":
        images[name] = dict(step["tree"])
    elif op == "image-rm":
        del images[name]
    elif op not in ("start", "stop"):
        raise ValueError(f"no such step: {op}")
    return state


def in_flight(state, step):
    """The states that may be there when a cut fell into a step: the later one first."""
    before = copy.deepcopy(state)
    if step["op"] == "write":
        # Any part of it may be there.
        before["containers"][step["name"]]["tree"].pop(step["path"], None)
    return [applied(state, step), before]


def replay(state, lines):
    """The states that are possible after these lines of one worker's ledger, and how many steps of each kind were acknowledged."""
    acknowledged, begun = {}, None
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            # The cut tore it: nothing was done yet.
            break
        if "done" in entry:
            state = applied(state, begun)
            acknowledged[begun["op"]] = acknowledged.get(begun["op"], 0) + 1
            begun = None
        else:
            begun = entry["begin"]
    return (in_flight(state, begun) if begun else [state]), acknowledged


def part_of(state, worker):
    """What of a state is one worker's."""
    mine = lambda names: {name: value for name, value in names.items() if name.startswith(f"{worker}-")}
    return {"containers": mine(state["containers"]), "images": mine(state["images"])}


def joined(states):
    whole = copy.deepcopy(EMPTY)
    for state in states:
        whole["containers"].update(state["containers"])
        whole["images"].update(state["images"])
    return whole
