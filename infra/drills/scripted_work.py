"""One attempt at one piece of work, in the order of ``telecine.execution`` and through the same modules.

It makes items, checkpoints and a commit whose bytes follow from the shape alone, so that any crash and any number of
attempts must end at the same digests. What a fresh reader finds is read from the bytes, by nobody's memory.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import evidence
from telecine.storage import Store
from telecine.work import commits
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine.work.items import Items, Plain, Source
from telecine.work.retention import Keep

PREFIX = "work/drill.work/0123456789abcdef0123456789abcdef"
COMMIT = f"{PREFIX}/commit.json"
KEEP = Keep(last=2)


@dataclasses.dataclass(frozen=True)
class Shape:
    """How much there is to do."""

    num_items: int
    num_steps: int
    num_files: int
    file_bytes: int


def attempt(store: Store, shape: Shape, home: Path, scratch: Path, name: str, *, force: bool) -> dict[str, Any]:
    """Do the work unless an intact commit of it stands; says which digests stand, and which items and steps it did."""
    digests = Digests(home)
    made: list[str] = []
    steps: list[int] = []
    standing = commits.read(store, COMMIT)
    if standing is not None and not force:
        if not commits.broken_files(store, standing, digests):
            return _summary(store) | {"made": made, "steps": steps}
        commits.quarantine(store, COMMIT, standing)

    def process(source: Source, folder: Path) -> dict[str, Any]:
        made.append(source.name)
        (folder / "part.bin").write_bytes(content(source.name, shape.file_bytes // 2))
        return {"name": source.name}

    items = Items(
        store,
        digests,
        component="drill.work",
        source_digest="code",
        attempt=name,
        scratch=scratch / "items",
        force=force,
    )
    for index in range(shape.num_items):
        source = Source(f"item {index}", f"digest-{index}", {"bytes": shape.file_bytes})
        items.one(source, Plain("stage", process))
    state = _train(store, digests, shape, scratch, name, steps, force=force)
    folder = store.local(f"{PREFIX}/attempts/{name}") or scratch / "attempt"
    folder.mkdir(parents=True, exist_ok=True)
    _write_outputs(folder, shape, state)
    files = commits.describe_files(folder, f"{PREFIX}/attempts/{name}", digests)
    commits.upload_files(store, folder, f"{PREFIX}/attempts/{name}", files)
    record = {"attempt": name, "files": files, "items": items.records, "outputs": {}, "inputs": {}}
    commits.publish(store, COMMIT, record, replace=force)
    return _summary(store) | {"made": made, "steps": steps}


def content(name: str, size: int) -> bytes:
    """Bytes that follow from a name."""
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def inspect(store: Store) -> dict[str, Any]:
    """What a fresh reader sees: commits, those that are torn, the items and steps that stand."""
    torn, items, steps, standing = [], [], [], None
    for path in evidence.commits_in(store):
        parts = path.split("/")
        problem, record = evidence.problem_of(store, path)
        if problem:
            torn.append(problem)
        elif record is None:
            continue  # removed while the list was read
        elif parts[2] == "items":
            items.append(record["source"]["name"])
        elif parts[3] == "checkpoints":
            steps.append(record["step"])
        else:
            standing = record["attempt"]
    return {"torn": torn, "items": sorted(items), "steps": sorted(steps), "standing": standing}


def _train(
    store: Store, digests: Digests, shape: Shape, scratch: Path, name: str, steps: list[int], *, force: bool
) -> str:
    """A chain of states, each the digest of the one before it; ``steps`` gets those that are done."""
    checkpoints = Checkpoints(store, digests, work_prefix=PREFIX, attempt=name, scratch=scratch, before_commit=tuple)
    if force:
        checkpoints.clear()
    latest = checkpoints.latest()
    state = (latest.dir / "state.txt").read_text() if latest else "begin"
    for step in range(latest.step + 1 if latest else 1, shape.num_steps + 1):
        state = hashlib.sha256(state.encode()).hexdigest()
        steps.append(step)

        def write(folder: Path, state: str = state, step: int = step) -> None:
            (folder / "state.txt").write_text(state)
            (folder / "weights.bin").write_bytes(content(f"weights {step}", shape.file_bytes))

        checkpoints.save(step, write)
        checkpoints.prune(KEEP)
    return state


def _write_outputs(folder: Path, shape: Shape, state: str) -> None:
    (folder / "state.json").write_text(json.dumps({"state": state}))
    for index in range(shape.num_files):
        (folder / f"part-{index}").mkdir(exist_ok=True)
        (folder / f"part-{index}" / "data.bin").write_bytes(content(f"output {index}", shape.file_bytes))


def _summary(store: Store) -> dict[str, Any]:
    """Digests of all that the standing commit names, by names that do not change from attempt to attempt."""
    record = store.read_json(COMMIT)
    named = dict(record["files"])
    for item in record["items"]:
        named |= item["files"]
    attempt_prefix = f"{PREFIX}/attempts/{record['attempt']}/"
    return {"digests": {name.removeprefix(attempt_prefix): f["sha256"] for name, f in named.items()}}
