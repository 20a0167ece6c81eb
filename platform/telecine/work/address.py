"""The content key: what is computed, from what, by which code, and nothing about when or where."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from telecine.component import Component
from telecine.config import is_artifact, is_keyed
from telecine.errors import InputError
from telecine.storage import Store, to_json
from telecine.work import commits, source
from telecine.work.digests import Digests, combine

CONTRACT = 1
"""Part of every key. Raise it when the platform itself changes the bytes that a component commits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Where one piece of work lives, and why there.

    Attributes:
        component: ``area.verb``.
        key: 32 hexadecimal digits, the digest of everything below.
        inputs: resolved values of the inputs that are keyed; an artifact stands as ``{"digest": …}``.
        modules: digest of each source module in the component's import closure.
        run: the run's slug for a component with effects, else None: effects are never shared between runs.
    """

    component: str
    key: str
    inputs: dict[str, Any]
    modules: dict[str, str]
    run: str | None

    @property
    def prefix(self) -> str:
        """Folder of this work, relative to the store's root."""
        return f"work/{self.component}/{self.key}"

    @property
    def commit_path(self) -> str:
        """The record whose existence means success."""
        return f"{self.prefix}/commit.json"


def resolve(component: Component, inputs: Any, *, store: Store, digests: Digests, run: str) -> Address:
    """Compute the address of ``component`` on ``inputs``.

    Raises:
        InputError: if an input artifact does not exist or cannot be read.
    """
    values = {
        field.name: _canonical(component, field.name, getattr(inputs, field.name), store, digests)
        for field in dataclasses.fields(inputs)
        if is_keyed(component.inputs, field.name)
    }
    modules = source.module_digests(component.entry_module)
    scope = run if component.effects else None
    parts = {
        "contract": CONTRACT,
        "component": component.name,
        "inputs": values,
        "source": source.combined(modules),
        "run": scope,
    }
    key = hashlib.sha256(to_json(parts)).hexdigest()[:32]
    return Address(component=component.name, key=key, inputs=values, modules=modules, run=scope)


def _canonical(component: Component, name: str, value: Any, store: Store, digests: Digests) -> Any:
    if not is_artifact(component.inputs, name):
        return list(value) if isinstance(value, tuple) else value
    if value == "":
        return {"digest": None}
    try:
        return {"digest": artifact_digest(value, store, digests)}
    except BrokenArtifact as error:
        raise InputError(f"{component.name}: {name} is not what was committed: {error}; make it again") from None
    except FileNotFoundError:
        expected = "expected an existing file or folder"
        raise InputError(f"{component.name}: {name} does not exist: {value!r}; {expected}") from None
    except PermissionError as error:
        raise InputError(
            f"{component.name}: {name} cannot be read: {error.filename!r}; check its permissions"
        ) from None


class BrokenArtifact(Exception):
    """An artifact of the store whose bytes are no longer those of the commit that made it."""


def artifact_digest(uri: str, store: Store, digests: Digests) -> str:
    """Digest of the bytes behind a URI: from the commit that made it, if it holds, else from the bytes themselves.

    Raises:
        FileNotFoundError: nothing there.
        BrokenArtifact: other bytes than were committed.
    """
    path = store.path_of(uri)
    if path is None:
        return _external_digest(uri, digests)
    record = producer(path, store)
    for output in (record or {}).get("outputs", {}).values():
        if record and isinstance(output, dict) and output["path"] == path:
            broken = commits.broken_files(store, record, digests, below=path)
            if broken:
                raise BrokenArtifact(str(broken[0]))
            return str(output["digest"])
    raise FileNotFoundError(uri)


def producer(path: str, store: Store) -> dict[str, Any] | None:
    """Commit record, standing or replaced, of the attempt that made ``path`` (relative to the store), or None."""
    parts = path.split("/")
    if len(parts) < 5 or parts[0] != "work" or parts[3] != "attempts":
        return None
    records = commits.history(store, "/".join([*parts[:3], "commit.json"]))
    return next((record for record in records if record["attempt"] == parts[4]), None)


def committed_files(path: str, store: Store) -> dict[str, dict[str, Any]]:
    """What the commit that made a file or folder of the store says of its files; empty where there is none."""
    parts = path.split("/")
    if parts[:1] + parts[2:3] == ["work", "items"]:
        record = commits.read(store, "/".join([*parts[:4], "commit.json"]))
    else:
        record = producer(path, store)
    return dict(record["files"]) if record else {}


def elsewhere(uri: str) -> tuple[Store, str]:
    """An object store other than the deployment's, and the path in it of what a URI names."""
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise InputError("an input's URI must not hold credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.scheme != "s3":
        raise InputError(f"{uri!r}: an artifact must be a local path, file:// or s3://")
    return Store(f"s3://{parts.netloc}"), parts.path.strip("/")


def _external_digest(uri: str, digests: Digests) -> str:
    if "://" in uri and not uri.startswith("file://"):
        return _object_digest(*elsewhere(uri))
    path = local_path(uri)
    if not path.exists():
        raise FileNotFoundError(uri)
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PermissionError(13, "not readable", str(path))
    return digests.tree(path)


def _object_digest(store: Store, path: str) -> str:
    """Digest of names, sizes and entity tags: the bytes of somebody else's bucket are not read to name them."""
    entries = list(store.entries(path)) or [entry for entry in [store.head(path)] if entry]
    if not entries:
        raise FileNotFoundError(store.uri_of(path))
    return combine((entry.path.removeprefix(f"{path}/"), f"{entry.size} {entry.etag}") for entry in entries)


def local_path(uri: str) -> Path:
    """Path of a ``file://`` URI or of a plain path."""
    return Path(uri.removeprefix("file://")).expanduser().absolute()
