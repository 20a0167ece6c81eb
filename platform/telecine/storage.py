"""The store: one prefix on ``file://`` or ``s3://`` that holds all work, addressed by relative paths.

obstore moves the bytes. Three promises matter to the rest: :meth:`Store.write` replaces an object whole,
:meth:`Store.create` lets exactly one of many racers make an object, and :meth:`Store.sync` makes local files
survive a power cut. Unreachable stores raise :class:`RetryLater`, refused credentials :class:`InputError`.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from telecine.errors import InputError, RetryLater


@dataclasses.dataclass(frozen=True)
class Entry:
    """One object: its path below the store's root, bytes, last change (UTC) and the server's entity tag."""

    path: str
    size: int
    modified: datetime
    etag: str | None


class Store:
    """Objects below one root URI.

    Args:
        uri: ``file:///folder`` (made when missing) or ``s3://bucket/prefix`` with the endpoint and the
            credentials in the environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.root = Path(self.uri.removeprefix("file://")) if self.uri.startswith("file://") else None
        self._objects: LocalStore | S3Store
        if self.root is not None:
            self.root.mkdir(parents=True, exist_ok=True)
            self._objects = LocalStore(self.root, mkdir=True)
        else:
            self._objects = S3Store.from_url(self.uri)

    def uri_of(self, path: str) -> str:
        """Absolute URI of a path below the root."""
        return f"{self.uri}/{path}"

    def path_of(self, uri: str) -> str | None:
        """Path below the root, or None for a URI that lies elsewhere."""
        prefix = f"{self.uri}/"
        whole = f"file://{uri}" if uri.startswith("/") else uri
        return whole.removeprefix(prefix) if whole.startswith(prefix) else None

    def read(self, path: str) -> bytes:
        """The object's bytes; raises FileNotFoundError."""
        with self._translated():
            return bytes(obstore.get(self._objects, path).bytes())

    def read_json(self, path: str) -> Any:
        """The object's JSON value, or None where there is no such object."""
        try:
            return json.loads(self.read(path))
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Put an object whole, replacing an older one."""
        with self._translated():
            obstore.put(self._objects, path, data)

    def write_json(self, path: str, value: Any) -> None:
        """Put a JSON value; see :meth:`write`."""
        self.write(path, to_json(value))

    def create(self, path: str, data: bytes) -> bool:
        """Put an object only where there is none. False means that somebody else, or a lost reply, was first."""
        with self._translated():
            try:
                obstore.put(self._objects, path, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def head(self, path: str) -> Entry | None:
        """Size and change time of an object, or None."""
        with self._translated():
            try:
                return _entry(obstore.head(self._objects, path))
            except FileNotFoundError:
                return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Every object below a folder, sorted by path."""
        with self._translated():
            found = [_entry(meta) for batch in obstore.list(self._objects, prefix) for meta in batch]
        yield from sorted(found, key=lambda entry: entry.path)

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below one, sorted."""
        with self._translated():
            listing = obstore.list_with_delimiter(self._objects, prefix)
        return sorted(Path(path).name for path in listing["common_prefixes"])

    def delete(self, path: str) -> None:
        """Remove an object; none there is no error."""
        with self._translated(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._objects, path)

    def delete_folder(self, prefix: str) -> int:
        """Remove every object below a folder; returns how many there were."""
        entries = [entry.path for entry in self.entries(prefix)]
        for path in entries:
            self.delete(path)
        if self.root is not None:
            _remove_empty_folders(self.root / prefix)
        return len(entries)

    def local(self, path: str) -> Path | None:
        """The file or folder itself where the store is local, else None."""
        return self.root / path if self.root is not None else None

    def upload(self, file: Path, path: str) -> None:
        """Put a local file, in parts where it is large; nothing to do where it already lies in place."""
        if self.local(path) != file:
            with self._translated(), file.open("rb") as stream:
                obstore.put(self._objects, path, stream)

    def download(self, path: str, file: Path) -> None:
        """Stream an object into a local file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._translated(), file.open("wb") as target:
            for chunk in obstore.get(self._objects, path).stream():
                target.write(chunk)

    def sync(self, paths: list[str]) -> None:
        """Flush local files and their folders to the disk, so that a commit never outlives what it names."""
        if self.root is None:
            return
        folders = {(self.root / path).parent for path in paths}
        for target in [*(self.root / path for path in paths), *folders]:
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise InputError(f"store {self.uri}: access refused ({_reason(error)}); check the credentials") from None
        except GenericError as error:
            if self.root is not None:
                raise OSError(f"store {self.uri}: {_reason(error)}") from error
            raise RetryLater(f"store {self.uri}: not reachable ({_reason(error)})") from None


def to_json(value: Any) -> bytes:
    """JSON as machines write it: sorted, one trailing newline, equal bytes for equal values."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


def _reason(error: Exception) -> str:
    """First line of obstore's message; the rest is its debug dump."""
    return str(error).partition("\n")[0]


def _remove_empty_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
