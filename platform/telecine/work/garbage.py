"""Collect garbage: what no young run, no lasting record and no living attempt needs.

Lasting are the commits of components with effects (a registered model, a published report) and everything they
were made from, back to the first item. They are never removed here, however old.
"""

from collections.abc import Iterator
from typing import Any

from telecine import component
from telecine.storage import CLOCK, Entry, Store
from telecine.work import attempts, commits, runs

DAY_S = 86400.0
CLOCK_GRAIN_S = 2.0
"""Object stores tell times in whole seconds."""


def collect(store: Store, *, keep_days: float, dry_run: bool) -> dict[str, Any]:
    """Remove garbage and report it, folder by folder, with its reason and size."""
    began = store.now()
    kept = _kept(store, keep_days)
    doomed = [*_works(store, kept, keep_days), *_items(store, kept, keep_days), *_answers(store, keep_days)]
    report = []
    for prefix, reason in doomed:
        sizes = [entry.size for entry in store.entries(prefix)]
        if dry_run or _remove(store, prefix, began):
            report.append({"path": prefix, "reason": reason, "bytes": sum(sizes), "files": len(sizes)})
    for entry, reason in _cut_off(store):
        if _since(store, entry) > attempts.LEASE_S:
            report.append({"path": entry.path, "reason": reason, "bytes": entry.size, "files": 1})
            if not dry_run:
                store.discard(entry)
    return {"dry_run": dry_run, "removed": report, "bytes": sum(row["bytes"] for row in report)}


def _remove(store: Store, prefix: str, began: float) -> bool:
    """Remove a folder unless somebody came to need it since the look at the store began; returns whether it went.

    The commit goes first and comes back if a pointer appeared meanwhile. Whoever reuses work points to it first and
    then looks whether its commit still stands, so that one of the two always sees the other.
    """
    if _needed_since(store, prefix, began):
        return False
    path = f"{prefix}/commit.json"
    commit = store.read(path) if store.head(path) else None
    store.delete(path)
    if commit is not None and _needed_since(store, prefix, began):
        store.create(path, commit)
        return False
    commits.remove_folder(store, prefix)
    return True


def _needed_since(store: Store, prefix: str, began: float) -> bool:
    """Whether a task met this work, or work of this component whose items it may name, since ``began``."""
    parts = prefix.split("/")
    if parts[0] != "work":
        return False
    since = began - (CLOCK_GRAIN_S if store.root is None else 0.0)
    for entry in store.entries("runs"):
        if "/tasks/" not in entry.path or entry.modified.timestamp() < since:
            continue
        record = store.read_json(entry.path) or {}
        met = f"work/{record.get('component')}/{record.get('key')}"
        above = [parent for value in record.get("inputs", {}).values() for parent in _parents(store, value)]
        if any(f"{prefix}/".startswith(f"{one}/") for one in [met, *above]):
            return True
        if parts[2] == "items" and parts[1] == record.get("component"):
            return True
    return False


def render(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    verb = "would remove" if report["dry_run"] else "removed"
    lines = [f"{verb} {row['path']} ({row['bytes'] / 2**20:.1f} MiB): {row['reason']}" for row in report["removed"]]
    return "\n".join([*lines, f"{verb} {len(lines)} folders, {report['bytes'] / 2**20:.1f} MiB"])


def _kept(store: Store, keep_days: float) -> set[str]:
    """Prefixes of all work and items that must stay."""
    kept: set[str] = set()
    queue = [*_young(store, keep_days), *_lasting(store)]
    while queue:
        prefix = queue.pop()
        if prefix in kept:
            continue
        kept.add(prefix)
        for record in commits.history(store, f"{prefix}/commit.json"):
            kept |= {item["path"] for item in record["items"]}
            queue += [parent for value in record["inputs"].values() for parent in _parents(store, value)]
    return kept


def _young(store: Store, keep_days: float) -> Iterator[str]:
    """Work of every run with a young, living or waiting task, whole: its later tasks need what its earlier ones made.

    What a task with effects was given stays for good, also where it did not live to say that it is done.
    """
    for run in store.folders("runs"):
        met = [(entry, pointer) for entry, pointer in runs.entries(store, run) if pointer.key]
        limit_s = max(keep_days * DAY_S, attempts.LEASE_S if keep_days else 0.0)
        waits = any(_since(store, entry) < DAY_S for entry in store.entries(f"runs/{run}/waits"))
        young = waits or any(
            _since(store, entry) < limit_s or _living(store, _work_of(pointer)) for entry, pointer in met
        )
        for pointer in (pointer for _, pointer in met if young or _has_effects(pointer.component)):
            yield _work_of(pointer)
            yield from (parent for value in pointer.inputs.values() for parent in _parents(store, value))


def _work_of(pointer: runs.Pointer) -> str:
    return f"work/{pointer.component}/{pointer.key}"


def _has_effects(name: str) -> bool:
    """Work of a component that is no longer installed may have effects, too."""
    return name not in component.names() or component.find(name).effects


def _living(store: Store, prefix: str) -> set[str]:
    return {state["attempt"] for state in attempts.states(store, prefix) if attempts.is_alive(state)}


def _lasting(store: Store) -> Iterator[str]:
    for name in filter(_has_effects, store.folders("work")):
        yield from (f"work/{name}/{key}" for key in store.folders(f"work/{name}") if key != "items")


def _parents(store: Store, value: Any) -> Iterator[str]:
    path = store.path_of(value) if isinstance(value, str) else None
    if path and path.startswith("work/"):
        yield "/".join(path.split("/")[:3])


def _works(store: Store, kept: set[str], keep_days: float) -> Iterator[tuple[str, str]]:
    for name in store.folders("work"):
        for key in store.folders(f"work/{name}"):
            if key == "items":
                continue
            prefix = f"work/{name}/{key}"
            living = _living(store, prefix)
            if prefix not in kept and not living and _age_s(store, prefix) > keep_days * DAY_S:
                yield prefix, f"no run of the last {keep_days:g} days and no lasting record needs it"
            else:
                yield from _leftovers(store, prefix, living)


def _leftovers(store: Store, prefix: str, living: set[str]) -> Iterator[tuple[str, str]]:
    """Attempts that died, and checkpoints of work that is done. What was ever committed may be pointed to."""
    committed = {record["attempt"] for record in commits.history(store, f"{prefix}/commit.json")}
    for attempt in store.folders(f"{prefix}/attempts"):
        folder = f"{prefix}/attempts/{attempt}"
        if attempt not in living | committed and _is_over(store, prefix, attempt):
            yield folder, "its attempt ended without a commit"
    done = store.head(f"{prefix}/commit.json") is not None
    if done and not living and store.folders(f"{prefix}/checkpoints"):
        yield f"{prefix}/checkpoints", "the work they could resume is committed"


def _is_over(store: Store, prefix: str, attempt: str) -> bool:
    """Whether nobody will write to an attempt's folder any more; one that cannot be asked may be asleep for long."""
    states = {state["attempt"]: state for state in attempts.states(store, prefix)}
    age_s = _age_s(store, f"{prefix}/attempts/{attempt}")
    if attempt in states and attempts.is_known_dead(states[attempt]):
        return True
    return age_s > attempts.GRACE_S


def _items(store: Store, kept: set[str], keep_days: float) -> Iterator[tuple[str, str]]:
    for name in store.folders("work"):
        if any(_living(store, f"work/{name}/{key}") for key in store.folders(f"work/{name}")):
            continue  # an attempt of this component may be about to name any of them
        for item in store.folders(f"work/{name}/items"):
            prefix = f"work/{name}/items/{item}"
            if prefix in kept:
                continue
            committed = store.head(f"{prefix}/commit.json") is not None
            age_s = _age_s(store, prefix)
            if committed and age_s > keep_days * DAY_S:
                yield prefix, "no kept manifest names this item"
            elif not committed and age_s > attempts.LEASE_S:
                yield prefix, "the item was never committed"


def _answers(store: Store, keep_days: float) -> Iterator[tuple[str, str]]:
    """What services were asked and answered (``services/<model>/tasks/<id>/``); for a day it may still be waiting."""
    for model in store.folders("services"):
        for task in store.folders(f"services/{model}/tasks"):
            prefix = f"services/{model}/tasks/{task}"
            if _age_s(store, prefix) > max(keep_days, 1.0) * DAY_S:
                yield prefix, f"a service was asked for it more than {max(keep_days, 1.0):g} days ago"


def _cut_off(store: Store) -> Iterator[tuple[Entry, str]]:
    """What somebody left who was killed while reading the store's clock, or while writing to a local store.

    The folder of an attempt is written by its component, which may name files as it likes.
    """
    yield from ((entry, "a look at the clock was cut off") for entry in store.entries(CLOCK))
    yield from ((entry, "a write was cut off") for entry in store.staged("") if "/attempts/" not in entry.path)


def _age_s(store: Store, prefix: str) -> float:
    """Seconds since anything below a folder changed."""
    return min((_since(store, entry) for entry in store.entries(prefix)), default=store.now())


def _since(store: Store, entry: Entry) -> float:
    """Seconds since an object changed, on the store's clock: those of the machines may differ by hours."""
    return store.now() - entry.modified.timestamp()
