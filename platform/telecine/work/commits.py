"""Commit records: made last, by a conditional create, read by everybody, and never trusted without a look."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from telecine.component import Component
from telecine.config import is_artifact
from telecine.errors import RetryLater
from telecine.storage import Entry, Store, to_json
from telecine.work.digests import Digests, combine, files_below

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Broken:
    """A committed file that is gone or whose bytes are not those of the record."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} is {self.problem}"


def read(store: Store, path: str) -> Record | None:
    """The record at ``path``, or None. What cannot be read as one is moved aside: it was torn by a power cut."""
    try:
        data = store.read(path)
        record: Record = json.loads(data)
    except FileNotFoundError:
        return None
    except ValueError:
        folder, _, name = path.rpartition("/")
        store.write(f"{folder}/broken/torn-{name}", data)
        if store.read(path) == data:  # else it has been committed anew meanwhile
            store.delete(path)
        return None
    return record


def history(store: Store, path: str) -> list[Record]:
    """The record at ``path`` and those that it replaced or that no longer held."""
    folder = path.rpartition("/")[0]
    names = [entry.path for entry in store.entries(f"{folder}/broken") if "/torn-" not in entry.path]
    return [record for name in [path, *names] if (record := read(store, name)) is not None]


def publish(store: Store, path: str, record: Record, *, replace: bool = False) -> Record:
    """Make ``record`` the commit at ``path`` and return the one that stands there now.

    The caller won if the returned record carries its attempt: a store may keep the object and lose the reply, so
    "already exists" alone says nothing. ``replace`` overwrites, for work that was redone by force.
    """
    store.sync(list(record["files"]))
    data = to_json(record)
    if replace:
        _set_aside(store, path)
        store.write(path, data)
    while not replace and not store.create(path, data):
        standing = read(store, path)
        if standing is not None:  # else it was just moved aside: the place is free again
            return standing
    store.sync([path])
    return record


def describe_files(folder: Path, prefix: str, digests: Digests) -> dict[str, dict[str, Any]]:
    """``{store path: {"sha256", "size"}}`` of every file below a local folder that lies at ``prefix``."""
    return {
        f"{prefix}/{file.relative_to(folder).as_posix()}": {"sha256": digests.file(file), "size": file.stat().st_size}
        for file in files_below(folder)
    }


def upload_files(store: Store, folder: Path, prefix: str, files: dict[str, dict[str, Any]]) -> None:
    """Put the described files of a local folder in place and note the server's entity tags, read back after it all.

    Where a store has no local files, the tag is what tells later, for one small request, whether an object still is
    what was committed.
    """
    for name, known in files.items():
        store.upload(folder / name.removeprefix(f"{prefix}/"), name)
        if store.root is None:
            entry = store.head(name)
            if entry is None or entry.size != known["size"]:
                raise RetryLater(f"{store.uri_of(name)}: stored incompletely; call again")
            known["etag"] = entry.etag


def describe_outputs(component: Component, outputs: Any, prefix: str, files: dict[str, Any]) -> dict[str, Any]:
    """Outputs as the record keeps them: values as they are, artifacts as store path and digest."""
    described: dict[str, Any] = {}
    for field in dataclasses.fields(outputs):
        value = getattr(outputs, field.name)
        if is_artifact(component.outputs, field.name):
            value = {"path": f"{prefix}/{value}", "digest": _artifact_digest(f"{prefix}/{value}", files)}
        described[field.name] = list(value) if isinstance(value, tuple) else value
    return described


def resolved_outputs(store: Store, record: Record) -> dict[str, Any]:
    """Outputs as the next component takes them: artifacts as URIs of this store."""
    return {
        name: store.uri_of(value["path"]) if isinstance(value, dict) else value
        for name, value in record["outputs"].items()
    }


def broken_files(store: Store, record: Record, digests: Digests, *, below: str = "") -> list[Broken]:
    """Which of the record's files, its items' included, are no longer what was committed.

    Args:
        below: look only at this file or folder and at the items, which any file of the record may name.
    """
    expected = {name: known for name, known in record["files"].items() if f"{name}/".startswith(below)}
    for item in record.get("items", []):
        expected |= item["files"]
    problems = [(path, _problem(store, path, known, digests)) for path, known in expected.items()]
    return [Broken(path, problem) for path, problem in problems if problem]


def remove_folder(store: Store, prefix: str) -> None:
    """Remove a folder and all below it, the commits first: whoever reads meanwhile meets all of a thing or nothing."""
    names = [entry.path for entry in store.entries(prefix)]
    for name in (name for name in names if name.endswith("/commit.json")):
        store.delete(name)
    store.delete_folder(prefix)


def quarantine(store: Store, path: str, record: Record) -> None:
    """Move a record that no longer holds out of the way, unless somebody already replaced it."""
    standing = read(store, path)
    if standing is not None and standing["attempt"] == record["attempt"]:
        _set_aside(store, path)
        store.delete(path)


def _set_aside(store: Store, path: str) -> None:
    """Keep a copy of the standing record: URIs that were given away must stay resolvable."""
    standing = read(store, path)
    if standing is not None:
        folder, _, name = path.rpartition("/")
        store.write(f"{folder}/broken/{standing['attempt']}-{name}", to_json(standing))


def _artifact_digest(path: str, files: dict[str, Any]) -> str:
    if path in files:
        return str(files[path]["sha256"])
    below = [
        (name.removeprefix(path + "/"), known["sha256"]) for name, known in files.items() if name.startswith(path + "/")
    ]
    if not below:
        raise FileNotFoundError(f"the component named {path} as an output but wrote no such file or folder")
    return combine(below)


def _problem(store: Store, path: str, known: dict[str, Any], digests: Digests) -> str | None:
    entry = store.head(path)
    if entry is None:
        return "missing"
    if entry.size != known["size"]:
        return f"{entry.size} bytes long, committed were {known['size']}"
    return "changed since it was committed" if _differs(store, entry, known, digests) else None


def _differs(store: Store, entry: Entry, known: dict[str, Any], digests: Digests) -> bool:
    """By the bytes of a local file; by the entity tag of an object, and by its bytes where the tag is another one.

    A tag may change although the bytes do not: some servers derive it from the way an object was uploaded.
    """
    local = store.local(entry.path)
    if local is not None:
        return digests.file(local) != str(known["sha256"])
    return bool(entry.etag != known.get("etag") and store.sha256(entry.path) != known["sha256"])
