"""Artifacts as local files: in place where the store is a folder, else downloaded once."""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from telecine.errors import RetryLater
from telecine.storage import Entry, Store
from telecine.work import address
from telecine.work.digests import Digests

_MARK = "etag:"


class Reader:
    """Reads from a store, and from whatever else an artifact's URI names.

    Args:
        scratch: folder for what is downloaded.
    """

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._downloads: set[str] = set()

    def fetch(self, uri: str) -> Path:
        """Local, read-only path of an artifact."""
        path = self._store.path_of(uri)
        if path is not None:
            return self.path(path)
        return self._downloaded(*address.elsewhere(uri)) if uri.startswith("s3://") else address.local_path(uri)

    def path(self, store_path: str) -> Path:
        """Local, read-only path of a file or folder named relative to the store's root."""
        return self._store.local(store_path) or self._downloaded(self._store, store_path)

    def _downloaded(self, store: Store, path: str) -> Path:
        root = self._scratch / "store" / hashlib.sha256(store.uri.encode()).hexdigest()[:8]
        if store.uri_of(path) in self._downloads:
            return root / path
        committed = address.committed_files(path, store) if store is self._store else {}
        # A listing may be stale, a commit is not. And a store lists what lies below a folder, never the object itself.
        names = [name for name in committed if f"{name}/".startswith(f"{path}/")]
        for name in names or [entry.path for entry in store.entries(path)] or [path]:
            store.download(name, root / name, sha256=committed.get(name, {}).get("sha256"))
        self._downloads.add(store.uri_of(path))
        return root / path


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of inputs that is read a file at a time: a plain value, which other processes and machines can be given.

    Attributes:
        uri: local path, ``file://`` or ``s3://``.
        store_uri: the deployment's store, whose commits name the digests of what lies in it.
        home: where the digests of local files are remembered.
    """

    uri: str
    store_uri: str
    home: Path

    def digests(self) -> dict[str, str]:
        """Digest of each file by its path below the folder, sorted, no remote file being read for it.

        It is SHA-256 of the bytes, but where they lie in somebody else's bucket, which is told by :func:`is_sha256`.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError: no local folder that can be read.
            RetryLater: a file of it went meanwhile.
        """
        root = self._root()
        if root is not None:
            next(root.iterdir(), None)  # raises what os.walk does not
            found = Digests(self.home).below(root)
            return {path.relative_to(root).as_posix(): digest for path, digest in found.items()}
        store, path, committed = self._remote()
        if committed:
            marks = {name: str(known["sha256"]) for name, known in committed.items() if name.startswith(f"{path}/")}
        else:
            marks = {entry.path: _mark(entry) for entry in store.entries(path)}
        return {name.removeprefix(f"{path}/"): marks[name] for name in sorted(marks)}

    @contextlib.contextmanager
    def at_hand(self, files: Mapping[str, str]) -> Iterator[Path]:
        """A local folder that holds these files of :meth:`digests`; copies of remote ones are gone afterwards.

        Raises:
            RetryLater: a file was no longer the one that was told of, whatever came of reading it.
        """
        root = self._root()
        if root is not None:
            with _unchanged(files, lambda name: Digests(self.home).file(root / name)):
                yield root
            return
        store, path, committed = self._remote()
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder:
            for name in files:
                whole = f"{path}/{name}"
                store.download(whole, Path(folder, name), sha256=committed.get(whole, {}).get("sha256"))
            if committed:
                yield Path(folder)
            else:
                with _unchanged(files, lambda name: _mark(store.head(f"{path}/{name}"))):
                    yield Path(folder)

    def beginning(self, name: str, size: int) -> bytes:
        """The first ``size`` bytes of a file; none where it does not lie on this machine."""
        root = self._root()
        if root is None:
            return b""
        with (root / name).open("rb") as file:
            return file.read(size)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file in a folder that is at hand."""
        return Digests(self.home).file(path)

    def _root(self) -> Path | None:
        store = Store(self.store_uri)
        path = store.path_of(self.uri)
        if path is not None:
            return store.local(path)
        return None if self.uri.startswith("s3://") else address.local_path(self.uri)

    def _remote(self) -> tuple[Store, str, dict[str, dict[str, Any]]]:
        """Store and path of a folder that is not on this machine, and what a commit says of its files."""
        store = Store(self.store_uri)
        path = store.path_of(self.uri)
        return (store, path, address.committed_files(path, store)) if path else (*address.elsewhere(self.uri), {})


@contextlib.contextmanager
def _unchanged(files: Mapping[str, str], now: Callable[[str], str]) -> Iterator[None]:
    try:
        yield
    finally:
        for name, digest in files.items():
            try:
                same = now(name) == digest
            except FileNotFoundError:
                same = False
            if not same:
                raise RetryLater(f"{name} changed while it was read; call again")


def is_sha256(digest: str) -> bool:
    """Whether a digest of :meth:`Folder.digests` is that of the bytes, and no mark of an object that was not read."""
    return not digest.startswith(_MARK)


def _mark(entry: Entry | None) -> str:
    return f"{_MARK}{entry.size}-{entry.etag}" if entry else ""
