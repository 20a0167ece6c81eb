"""``telecine lineage`` forward: which datasets, trainings and models saw a clip or a file.

A model saw what any dataset behind it declared for learning, however many trainings ago; what was only held out of
all of them it was at most measured on.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from telecine.errors import InputError
from telecine.storage import Store
from telecine.work import commits, sources
from telecine.work.lineage import MODEL, SHORT, all_records, artifacts, registers

MIN_PREFIX = 6
NUM_READERS = 8

Matches = list[tuple[commits.Record, list[sources.Row]]]


def forward(store: Store, what: str) -> dict[str, Any]:
    """Everything that saw a clip (by id), a source file (by name or digest), or a unique prefix of either digest.

    Raises:
        InputError: nothing is called so, or several things are.
    """
    records = _records(store)
    datasets = [(record, rows) for record in records if (rows := sources.read(store, record))]
    title, matches = _matches(datasets, what)
    splits = {_node(record): _split(rows) for record, rows in matches}
    saw = _spread(store, records, splits)
    trainings = [record for record in records if MODEL in record["outputs"] and _node(record) in saw]
    models = [record for record in records if registers(record) and _weights(store, record) in saw]
    return {
        "what": what,
        "kind": title.partition(" ")[0],
        "title": title,
        "datasets": [_entry(record, splits[_node(record)]) | {"clips": rows} for record, rows in matches],
        "trainings": [_entry(record, saw[_node(record)]) for record in trainings],
        "models": _versions(store, models, saw),
    }


def render(report: dict[str, Any]) -> str:
    """Who saw it, as a person reads it."""
    rights = sorted({(row["licence"], row["consent"]) for entry in report["datasets"] for row in entry["clips"]})
    lines = [report["title"]]
    lines += [f"licence {licence or 'unknown'}, consent {consent or 'unknown'}" for licence, consent in rights]
    for kind in ("datasets", "trainings"):
        lines += ["", kind]
        lines += [
            f"  {entry['component']}  key {entry['key'][:SHORT]}  run {entry['run']}  {_words(kind, entry)}"
            for entry in report[kind]
        ] or ["  none"]
    lines += ["", "registered models"]
    lines += [
        f"  {entry['model_name']} version {entry['model_version']}  {_words('models', entry)}"
        for entry in report["models"]
    ] or ["  none"]
    return "\n".join(lines)


def _words(kind: str, entry: dict[str, Any]) -> str:
    if kind == "datasets":
        train, val = (sum(row["split"] == split for row in entry["clips"]) for split in ("train", "val"))
        return f"{train} clips to learn from, {val} held out"
    return "learned from it" if entry["split"] == "train" else "was only measured on it"


def _records(store: Store) -> list[commits.Record]:
    """Every commit of the store, oldest first."""
    with ThreadPoolExecutor(NUM_READERS) as readers:
        found = readers.map(lambda name: list(all_records(store, name)), store.folders("work"))
        return sorted((record for records in found for record in records), key=lambda each: float(each["committed"]))


def _matches(datasets: Matches, what: str) -> tuple[str, Matches]:
    """The rows that ``what`` names, and the name itself in full."""
    rows = [row for _, found in datasets for row in found]
    if any(row["clip_id"].startswith(what) for row in rows) and any(
        row["source_digest"].startswith(what) for row in rows
    ):
        raise InputError(f"{what!r} is the beginning of a clip's id and of a file's digest; give more of it")
    for kind, field, fits in _readings(what):
        names = sorted({row[field] for row in rows if fits(row)})
        if kind == "file" and field == "source_digest" and len(names) > 1:
            shown = ", ".join(name[:SHORT] for name in names[:4])
            raise InputError(f"{what!r} names {len(names)} different files; ask by one of their digests: {shown}")
        if len(names) > 1:
            shown = ", ".join(names[:4])
            raise InputError(f"{what!r} is the beginning of {len(names)} {kind}s: {shown}; give more of it")
        if names:
            kept = [(record, [row for row in found if row[field] == names[0]]) for record, found in datasets]
            file = next(row["source"] for row in rows if row[field] == names[0])
            title = f"clip {names[0]} of {file}" if kind == "clip" else f"file {file}, digest {names[0][:SHORT]}"
            return title, [(record, found) for record, found in kept if found]
    raise InputError(
        f"{what!r} is no model, run, artifact, clip or source file of this store; give name@alias, name:version, "
        f"a run, a URI, a clip id, a file name, or at least {MIN_PREFIX} digits of a digest"
    )


def _readings(what: str) -> Iterator[tuple[str, str, Any]]:
    """Ways to read ``what``, the most exact first: kind, the field that then has to be unique, and who fits."""
    yield "clip", "clip_id", lambda row: row["clip_id"] == what
    yield "file", "source_digest", lambda row: row["source"] == what or row["source_digest"] == what
    yield "file", "source_digest", lambda row: row["source"].rpartition("/")[2] == what
    if re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},64}}", what):
        yield "clip", "clip_id", lambda row: row["clip_id"].startswith(what)
        yield "file", "source_digest", lambda row: row["source_digest"].startswith(what)


def _spread(store: Store, records: list[commits.Record], splits: dict[str, str]) -> dict[str, str]:
    """By commit, the most that it saw: ``train`` where any dataset behind it has the clip to learn from."""
    saw = dict(splits)
    for record in records:  # the oldest first: what a commit read is settled before the commit itself
        parents = [_parent(store, uri) for _, uri in artifacts(store, record)]
        seen = {saw[parent] for parent in parents if parent in saw}
        if seen:
            saw[_node(record)] = "train" if "train" in seen | {saw.get(_node(record), "")} else "val"
    return saw


def _versions(store: Store, models: list[commits.Record], saw: dict[str, str]) -> list[dict[str, Any]]:
    """One entry a version, however many runs registered it."""
    entries = {}
    for record in models:
        named = {name: str(record["outputs"][name]) for name in ("model_name", "model_version")}
        entries[tuple(named.values())] = named | {"split": saw[_weights(store, record)], "run": record["run"]}
    return list(entries.values())


def _weights(store: Store, record: commits.Record) -> str:
    return _parent(store, str(record["inputs"][MODEL]))


def _parent(store: Store, uri: str) -> str:
    """The commit behind an artifact, as :func:`_node` names it; empty for what came from outside."""
    parts = (store.path_of(uri) or "").split("/")
    return "/".join((parts[2], parts[4])) if len(parts) > 4 and parts[3] == "attempts" else ""


def _node(record: commits.Record) -> str:
    return f"{record['key']}/{record['attempt']}"


def _split(rows: list[sources.Row]) -> str:
    return "train" if any(row["split"] == "train" for row in rows) else "val"


def _entry(record: commits.Record, split: str) -> dict[str, Any]:
    names = ("component", "key", "attempt", "run", "task", "mlflow_run_id")
    return {**{name: record[name] for name in names}, "split": split}
