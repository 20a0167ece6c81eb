"""Collect garbage: what no young run, no lasting record and no living attempt needs.

Lasting are the commits of components with effects (a registered model, a published report) and everything they
were made from, back to the first item. They are never removed here, however old.
"""

import time
from collections.abc import Iterator
from typing import Any

from telecine import component
from telecine.storage import Store
from telecine.work import attempts, commits, runs

DAY_S = 86400.0


def collect(store: Store, *, keep_days: float, dry_run: bool) -> dict[str, Any]:
    """Remove garbage and report it, folder by folder, with its reason and size."""
    kept = _kept(store, keep_days)
    doomed = [*_works(store, kept, keep_days), *_items(store, kept, keep_days)]
    report = []
    for prefix, reason in doomed:
        entries = list(store.entries(prefix))
        report.append({"path": prefix, "reason": reason, "bytes": sum(e.size for e in entries), "files": len(entries)})
        if not dry_run:
            _remove(store, prefix)
    return {"dry_run": dry_run, "removed": report, "bytes": sum(row["bytes"] for row in report)}


def render(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    verb = "would remove" if report["dry_run"] else "removed"
    lines = [f"{verb} {row['path']} ({row['bytes'] / 2**20:.1f} MiB): {row['reason']}" for row in report["removed"]]
    return "\n".join([*lines, f"{verb} {len(lines)} folders, {report['bytes'] / 2**20:.1f} MiB"])


def _remove(store: Store, prefix: str) -> None:
    """Remove a folder, its commit first: a reader sees all of it or none."""
    store.delete(f"{prefix}/commit.json")
    store.delete_folder(prefix)


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
    for run in runs.names(store):
        for pointer in runs.pointers(store, run):
            prefix = f"work/{pointer.component}/{pointer.key}"
            if time.time() - pointer.started < keep_days * DAY_S or _living(store, prefix):
                yield prefix
                yield from (parent for value in pointer.inputs.values() for parent in _parents(store, value))


def _living(store: Store, prefix: str) -> set[str]:
    return {state["attempt"] for state in attempts.states(store, prefix) if attempts.is_alive(state)}


def _lasting(store: Store) -> Iterator[str]:
    known = set(component.names())
    for name in store.folders("work"):
        # Work of a component that is no longer installed may have effects: it lasts.
        if name in known and not component.find(name).effects:
            continue
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
        if attempt not in living | committed and _age_s(store, folder) > attempts.LEASE_S:
            yield folder, "its attempt ended without a commit"
    done = store.head(f"{prefix}/commit.json") is not None
    if done and not living and store.folders(f"{prefix}/checkpoints"):
        yield f"{prefix}/checkpoints", "the work they could resume is committed"


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


def _age_s(store: Store, prefix: str) -> float:
    """Seconds since anything below a folder changed, by the store's own clock readings."""
    newest = max((entry.modified.timestamp() for entry in store.entries(prefix)), default=0.0)
    return time.time() - newest
