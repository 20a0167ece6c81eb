"""SHA-256 of files and folders, remembered as long as a file's size, times and inode stay the same."""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from telecine.errors import RetryLater

_SCHEMA = """create table if not exists digests (
    path text primary key, size integer, mtime_ns integer, ctime_ns integer, inode integer, sha256 text)"""
_REMEMBER = "insert or replace into digests values (?,?,?,?,?,?)"
_lock = threading.Lock()
_PATIENCE_S, _PAUSE_S = 60.0, 0.02


class Digests:
    """Digests with a memory in ``<home>/digests.sqlite``.

    A file counts as unchanged while size, modification time, change time and inode are equal, the rule by which
    git trusts its index; the change time cannot be set back by a program, so a flipped byte is seen.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._memory = sqlite3.connect(home / "digests.sqlite", timeout=_PATIENCE_S, check_same_thread=False)
        self._ask("pragma journal_mode=wal")
        self._ask(_SCHEMA)

    def file(self, path: Path) -> str:
        """SHA-256 of a file's bytes, hexadecimal."""
        name, *state = _state(path)
        query = "select sha256 from digests where path=? and size=? and mtime_ns=? and ctime_ns=? and inode=?"
        row = self._ask(query, name, *state)
        if row:
            return str(row[0])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._ask(_REMEMBER, name, *state, digest)
        return digest

    def remember(self, path: Path, sha256: str) -> None:
        """Take the digest of a file from whoever has just written it, so that its bytes are not read again."""
        self._ask(_REMEMBER, *_state(path), sha256)

    def _ask(self, statement: str, *values: Any) -> Any:
        """The first row of an answer.

        SQLite's own patience does not cover the change to write-ahead logging, nor the moment in which whoever closes
        last cleans up: both answer "locked" at once.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with _lock, self._memory:
                    return self._memory.execute(statement, values).fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_S)

    def tree(self, path: Path) -> str:
        """Digest of a file, or of a folder's relative names and bytes; raises as :meth:`below`."""
        if path.is_file():
            return self.file(path)
        return combine((str(file.relative_to(path)), digest) for file, digest in self.below(path).items())

    def below(self, folder: Path) -> dict[Path, str]:
        """Digest of each file below a folder, sorted.

        Raises:
            RetryLater: a file went while the others were read, as one that is being copied there under another name.
        """
        found: dict[Path, str] = {}
        for file in files_below(folder):
            try:
                found[file] = self.file(file)
            except FileNotFoundError:
                raise RetryLater(f"{file} went while its folder was read; call again") from None
        return found


def _state(path: Path) -> tuple[str, int, int, int, int]:
    """A file's absolute name, and what changes with its bytes."""
    stat = path.stat()
    # A name need not be UTF-8, and then SQLite refuses it as text.
    name = os.fsencode(path.absolute()).decode(errors="backslashreplace")
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def combine(named: Iterable[tuple[str, str]]) -> str:
    """One digest for many ``(relative name, digest)`` pairs, whatever their order."""
    lines = sorted(f"{digest}  {name}\n" for name, digest in named)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every regular file below a folder, sorted; links are followed, each folder is entered once.

    Raises:
        PermissionError: rather than skip what cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        stat = os.stat(root)
        if (stat.st_dev, stat.st_ino) in entered:
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders.sort()
        found += [Path(root) / name for name in names]
    return sorted(path for path in found if path.is_file())
