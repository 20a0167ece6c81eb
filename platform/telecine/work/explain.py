"""Why work was, or was not, reused: the difference between two addresses, in plain words."""

import time
from typing import Any

from telecine.storage import Store
from telecine.work import commits
from telecine.work.address import Address

MAX_DIFFERENCES = 3
MAX_POINTERS, MAX_COMMITS = 20, 5
"""How many tasks, and how many commits of theirs, are looked at to find the one to compare with."""


def why_reused(record: commits.Record) -> str:
    """Who made the commit that is being reused, and when."""
    age = _age(time.time() - float(record["committed"]))
    return f"same inputs and code as in run {record['run']}, committed {age} ago"


def why_new(store: Store, where: Address) -> str:
    """What differs between an address without a commit and the nearest of the same component's newest commits."""
    if where.run is not None:
        return "it has effects, so every run does it anew"
    if commits.history(store, where.commit_path):
        return "its commit did not hold: a file was missing or changed"
    nearest = nearest_commit(store, where)
    if nearest is None:
        return "first time"
    return differences(nearest["address"], where) or "its commit is gone"


def nearest_commit(store: Store, where: Address) -> commits.Record | None:
    """Of the newest commits of the same component the one that shares most inputs and modules; the newest of equals."""
    paths = [f"work/{where.component}/{key}/commit.json" for key in _newest_keys(store, where)]
    records = [record for path in paths if (record := store.read_json(path)) is not None]
    return max(records, key=lambda each: (_shared(each["address"], where), float(each["committed"])), default=None)


def _newest_keys(store: Store, where: Address) -> list[str]:
    """Keys that tasks of this component met last: to read every commit there ever was takes a large store minutes."""
    met = [entry for entry in store.entries("runs") if "/tasks/" in entry.path and where.component in entry.path]
    keys: dict[str, None] = {}
    for entry in sorted(met, key=lambda entry: entry.modified, reverse=True)[:MAX_POINTERS]:
        pointer = store.read_json(entry.path) or {}
        if pointer.get("component") == where.component and pointer["key"] not in ("", where.key):
            keys[pointer["key"]] = None
    return list(keys)[:MAX_COMMITS]


def differences(old: dict[str, Any], new: Address) -> str:
    """Changed inputs and modules, as a sentence; empty when there are none."""
    parts = [_input_difference(name, old["inputs"].get(name), value) for name, value in new.inputs.items()]
    parts += [f"{name} is no longer an input" for name in old["inputs"] if name not in new.inputs]
    parts += [_module_difference(module, old, new) for module in sorted({*old["modules"], *new.modules})]
    return _joined([part for part in parts if part])


def _joined(parts: list[str]) -> str:
    more = f"; and {len(parts) - MAX_DIFFERENCES} more" if len(parts) > MAX_DIFFERENCES else ""
    return "; ".join(parts[:MAX_DIFFERENCES]) + more


def _input_difference(name: str, old: Any, new: Any) -> str:
    if old == new:
        return ""
    if isinstance(new, dict):
        return f"the content of {name} changed"
    return f"{name} was {old!r}, now {new!r}" if old is not None else f"{name} is a new input"


def _module_difference(module: str, old: dict[str, Any], new: Address) -> str:
    before, after = old["modules"].get(module), new.modules.get(module)
    if before == after:
        return ""
    if before is None:
        return f"code: {module} is new"
    return f"code: {module} changed" if after else f"code: {module} is no longer used"


def _shared(old: dict[str, Any], new: Address) -> int:
    inputs = [name for name, value in new.inputs.items() if old["inputs"].get(name) == value]
    modules = [name for name, digest in new.modules.items() if old["modules"].get(name) == digest]
    return len(inputs) + len(modules)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
