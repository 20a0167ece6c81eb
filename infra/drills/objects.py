"""Objects in a folder: whole or not there, over a kill -9 of the server at any moment.

An object is a file of one line of JSON (its entity tag) and its bytes. It is written beside its place and then moved
or linked there in one system call, so a process that dies leaves the old object, the new one, or none. Nothing is
flushed: this survives the death of the process, not of the machine.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Found:
    """One object: its key, bytes of its content, entity tag, last change (UTC) and where its content begins."""

    key: str
    size: int
    etag: str
    modified: datetime
    file: Path
    offset: int

    def content(self, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of the content."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset + start)
            return stream.read(self.size - start if length is None else length)


class Bucket:
    """The objects of one bucket.

    Keys become paths: ``d.`` before each folder and ``f.`` before the file, so that any key is a safe name and ``a``
    and ``a/b`` may both be objects.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects, self._new, self._uploads = folder / "objects", folder / "new", folder / "uploads"

    def make(self) -> None:
        """Create the bucket."""
        for path in (self._objects, self._new, self._uploads):
            path.mkdir(parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Whether it was created."""
        return self._uploads.is_dir()

    def put(self, key: str, data: bytes, *, only_new: bool, etag: str | None = None) -> str | None:
        """Store an object; its entity tag, or None where ``only_new`` found another one in its place."""
        etag = etag or hashlib.md5(data, usedforsecurity=False).hexdigest()
        fresh, place = self._new / secrets.token_hex(16), self._path(key)
        fresh.write_bytes(json.dumps({"etag": etag}).encode() + b"\n" + data)
        try:
            while True:
                place.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # a delete has just removed the empty folder
                    return self._move(fresh, place, etag, only_new=only_new)
        finally:
            fresh.unlink(missing_ok=True)

    def get(self, key: str) -> Found | None:
        """The object, or None."""
        return _found(self._path(key), key)

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        place = self._path(key)
        place.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in place.parents:
                if folder == self._objects:
                    break
                folder.rmdir()

    def walk(self, prefix: str) -> list[Found]:
        """Every object whose key begins with ``prefix``, sorted by key."""
        start = self._objects.joinpath(*(f"d.{part}" for part in prefix.split("/")[:-1]))
        return sorted((f for f in self._below(start) if f.key.startswith(prefix)), key=lambda found: found.key)

    def start_upload(self) -> str:
        """Begin an upload in parts; returns its id."""
        name = secrets.token_hex(16)
        (self._uploads / name).mkdir()
        return name

    def put_part(self, upload: str, number: int, data: bytes) -> str | None:
        """Store one part and return its entity tag, or None where there is no such upload."""
        folder = self._uploads / Path(upload).name
        if not folder.is_dir():
            return None
        fresh = self._new / secrets.token_hex(16)
        fresh.write_bytes(data)
        os.replace(fresh, folder / str(number))
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def complete(self, upload: str, key: str, numbers: list[int], *, only_new: bool) -> str | None:
        """Join parts into an object; raises FileNotFoundError for an unknown upload or part, else see :meth:`put`."""
        folder = self._uploads / Path(upload).name
        parts = [(folder / str(number)).read_bytes() for number in numbers]
        sums = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
        etag = f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"
        made = self.put(key, b"".join(parts), only_new=only_new, etag=etag)
        shutil.rmtree(folder, ignore_errors=True)
        return made

    def abort(self, upload: str) -> None:
        """Forget an upload and its parts."""
        shutil.rmtree(self._uploads / Path(upload).name, ignore_errors=True)

    def _path(self, key: str) -> Path:
        *folders, name = key.split("/")
        return self._objects.joinpath(*(f"d.{part}" for part in folders), f"f.{name}")

    def _move(self, fresh: Path, place: Path, etag: str, *, only_new: bool) -> str | None:
        if not only_new:
            os.replace(fresh, place)
            return etag
        try:
            os.link(fresh, place)
        except FileExistsError:
            return None
        return etag

    def _below(self, start: Path) -> Iterator[Found]:
        for root, _, names in os.walk(start):
            folders = [part.removeprefix("d.") for part in Path(root).relative_to(self._objects).parts]
            for name in names:
                found = _found(Path(root) / name, "/".join([*folders, name.removeprefix("f.")]))
                if found is not None:
                    yield found


def _found(file: Path, key: str) -> Found | None:
    try:
        with file.open("rb") as stream:
            head, stat = stream.readline(), os.fstat(stream.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return Found(key, stat.st_size - len(head), json.loads(head)["etag"], modified, file, len(head))
