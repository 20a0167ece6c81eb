"""``telecine lineage``: from a model, a run or an artifact back to the files that it was made of.

Every commit names the artifacts that it read, so the chain of work is found by walking commits through their inputs.
By convention an artifact called ``model_uri`` is a model, and a commit that takes one and gives ``model_name`` and
``model_version`` has registered it. The other direction is :mod:`telecine.work.exposure`.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from telecine import component
from telecine.errors import InputError
from telecine.storage import Store
from telecine.work import address, commits, runs, source, sources

MODEL = "model_uri"
VERSION = ("model_name", "model_version")
SHORT = 12

Alias = Callable[[str, str], str | None]


def backward(store: Store, what: str, alias: Alias) -> dict[str, Any] | None:
    """The chain behind a model, run or artifact, nearest first; None where ``what`` names none of these.

    Args:
        what: ``name@alias``, ``name:version``, a run's slug or an artifact's URI.
        alias: version that a model's alias points to, or None; asked only for ``name@alias``.

    Raises:
        InputError: it has the form of a model or an artifact and there is no such thing.
    """
    found = _model(store, what.removeprefix("models:/"), alias) or _run(store, what) or _artifact(store, what)
    if found is None:
        return None
    kind, title, tips = found
    records, outside = _walk(store, tips)
    files = _files(row for record in records for row in sources.read(store, record))
    steps = [_step(record) for record in records]
    return {"what": what, "kind": kind, "title": title, "steps": steps, "files": files, "outside": outside}


def render(report: dict[str, Any]) -> str:
    """The chain as a person reads it."""
    lines = [report["title"], "", "made by"]
    width = max((len(step["component"]) for step in report["steps"]), default=0)
    for step in report["steps"]:
        mlflow = f"  MLflow {step['mlflow_run_id'][:SHORT]}" if step["mlflow_run_id"] else ""
        place = f"key {step['key'][:SHORT]}  code {step['code'][:SHORT]}{mlflow}  run {step['run']}"
        lines.append(f"  {step['component']:{width}}  {place}")
    lines += ["", _counted(report["files"]), *_table(report["files"])]
    if report["outside"]:
        lines += ["", "read from outside the store", *(f"  {uri}" for uri in report["outside"])]
    return "\n".join(lines)


def all_records(store: Store, name: str) -> Iterator[commits.Record]:
    """Every commit of a component, those that were replaced included."""
    for key in store.folders(f"work/{name}"):
        if key != "items":
            yield from commits.history(store, f"work/{name}/{key}/commit.json")


def registers(record: commits.Record) -> bool:
    """Whether a commit has registered a model."""
    return MODEL in record["inputs"] and all(name in record["outputs"] for name in VERSION)


def artifacts(store: Store, record: commits.Record) -> Iterator[tuple[str, str]]:
    """Name and URI of each artifact that a commit read."""
    declared = record["address"]["inputs"]
    for name, value in record["inputs"].items():
        if isinstance(value, str) and value and isinstance(declared.get(name), dict):
            yield name, value


def _model(store: Store, what: str, alias: Alias) -> tuple[str, str, list[commits.Record]] | None:
    form = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:@([A-Za-z][\w.-]*)|[:/](\d+))", what)
    if form is None:
        return None
    name, label, number = form.groups()
    known = [record for record in _registrations(store) if record["outputs"]["model_name"] == name]
    versions = sorted({str(record["outputs"]["model_version"]) for record in known}, key=int)
    if not versions:
        raise InputError(f"no model {name!r} was registered from {store.uri}; ask by {name}:VERSION of one that was")
    version = alias(name, label) if label else number
    if version is None:
        raise InputError(f"model {name} has no alias {label!r}; its versions here are {', '.join(versions)}")
    if version not in versions:
        raise InputError(f"model {name} version {version} was not made here; the versions are {', '.join(versions)}")
    newest = max(  # every run registers anew, and equal weights meet at one version
        (record for record in known if str(record["outputs"]["model_version"]) == version),
        key=lambda record: float(record["committed"]),
    )
    named = f", alias {label}" if label else ""
    return "model", f"model {name} version {version}{named}", [newest]


def _registrations(store: Store) -> Iterator[commits.Record]:
    installed = set(component.names())
    for name in store.folders("work"):
        # Only what could have registered is read: a component says so by what it gives.
        fields = dataclasses.fields(component.find(name).outputs) if name in installed else None
        if fields is None or {field.name for field in fields} >= set(VERSION):
            yield from (record for record in all_records(store, name) if registers(record))


def _run(store: Store, what: str) -> tuple[str, str, list[commits.Record]] | None:
    pointers = runs.pointers(store, what) if re.fullmatch(r"[a-z0-9][a-z0-9-]*", what) else []
    if not pointers:
        return None
    paths = [f"work/{p.component}/{p.key}/attempts/{p.attempt}/" for p in pointers if p.key and p.attempt]
    records = [record for path in reversed(paths) if (record := address.producer(path, store)) is not None]
    return "run", f"run {what}", records


def _artifact(store: Store, what: str) -> tuple[str, str, list[commits.Record]] | None:
    path = store.path_of(what)
    if path is None:
        if "://" in what or what.startswith("/"):
            raise InputError(f"{what!r} lies outside {store.uri}; its lineage is known to the store that holds it")
        return None
    record = address.producer(path, store)
    if record is None:
        raise InputError(f"no commit made {what!r}; give a URI that telecine status --json shows among the outputs")
    return "artifact", f"artifact {what}", [record]


def _walk(store: Store, tips: list[commits.Record]) -> tuple[list[commits.Record], list[str]]:
    """The commits behind some others, nearest first, and what they read from outside the store.

    A registration is followed through its weights only: what it was told beside them made no weight.
    """
    seen: dict[tuple[str, str], commits.Record] = {}
    outside: set[str] = set()
    queue = list(tips)
    while queue:
        record = queue.pop(0)
        if (record["key"], record["attempt"]) in seen:
            continue
        seen[(record["key"], record["attempt"])] = record
        for name, uri in artifacts(store, record):
            if registers(record) and name != MODEL:
                continue
            path = store.path_of(uri)
            parent = None if path is None else address.producer(path, store)
            if parent is None:
                outside.add(uri)
            else:
                queue.append(parent)
    # The time of a commit orders work as no walk does: nothing is made before what it is made of.
    return sorted(seen.values(), key=lambda record: -float(record["committed"])), sorted(outside)


def _step(record: commits.Record) -> dict[str, Any]:
    return {
        **{name: record[name] for name in ("component", "key", "attempt", "run", "task", "committed", "mlflow_run_id")},
        "code": source.combined(record["address"]["modules"]),
        "git_commit": record["provenance"].get("git_commit", ""),
    }


def _files(rows: Iterator[sources.Row]) -> list[dict[str, Any]]:
    """One entry a source file, with its clips by split."""
    clips = {(row["clip_id"], row["split"]): row for row in rows}
    of_file: Counter[tuple[str, str, str, str, str]] = Counter(
        (row["source"], row["source_digest"], row["licence"], row["consent"], row["split"]) for row in clips.values()
    )
    names = ("source", "source_digest", "licence", "consent")
    files: dict[tuple[str, ...], dict[str, Any]] = {}
    for (*who, split), count in sorted(of_file.items()):
        entry = files.setdefault(tuple(who), {**dict(zip(names, who, strict=True)), "clips": {"train": 0, "val": 0}})
        entry["clips"][split] = count
    return list(files.values())


def _counted(files: list[dict[str, Any]]) -> str:
    if not files:
        return "no source was declared behind it"
    train, val = (sum(file["clips"][split] for file in files) for split in ("train", "val"))
    return f"from {len(files)} files: {train} clips to learn from, {val} held out"


def _table(files: list[dict[str, Any]]) -> list[str]:
    width = max((len(file["source"]) for file in files), default=0)
    return [
        f"  {file['source']:{width}}  {file['source_digest'][:SHORT]}  {file['clips']['train']} train "
        f"{file['clips']['val']} val  licence {file['licence'] or 'unknown'}  consent {file['consent'] or 'unknown'}"
        for file in files
    ]
