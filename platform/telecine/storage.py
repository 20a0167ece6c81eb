"""The store: one prefix on ``file://`` or ``s3://`` that holds all work, addressed by relative paths.

obstore moves the bytes. Four promises matter to the rest: :meth:`Store.write` replaces an object whole,
:meth:`Store.create` lets exactly one of many racers make an object, :meth:`Store.now` reads the one clock that all
machines share, and :meth:`Store.sync` makes local files survive a power cut.

A request to an ``s3://`` store that fails in passing (5xx, slow down, a cut body, no connection) is repeated with
back-off for TELECINE_STORE_RETRY_S seconds (default 30); then :class:`RetryLater` is raised. Refused credentials and
a missing bucket are :class:`InputError` at once.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, S3Store

from telecine.errors import InputError, RetryLater
from telecine.redaction import mask

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig, S3Config

RETRY_S = 30.0
"""How long a failing request to an object store is repeated before the caller hears of it."""
PATIENCE_S = 2.0
"""The same for a person who asks, and would rather hear that the store is away than wait as long as work does."""
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5, 120
CLOCK_MEMORY_S = 60.0
CLOCK = "clock"
"""Folder of the objects that :meth:`Store.now` writes and removes."""
_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"
_TOKEN = "get new credentials, and set AWS_SESSION_TOKEN with the keys it belongs to"  # noqa: S105 - advice
_REGION = "set AWS_REGION to the region of the bucket"
REFUSALS = {
    "AccessDenied": _KEYS,
    "AccountProblem": _KEYS,
    "AllAccessDisabled": _KEYS,
    "AuthorizationHeaderMalformed": _REGION,
    "BadRequest": f"{_KEYS}; {_REGION}",
    "ExpiredToken": _TOKEN,
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _KEYS,
    "InvalidToken": _TOKEN,
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "SignatureDoesNotMatch": _KEYS,
}
"""What an S3 server says, by its code, to a request that would be refused again; and how a person mends that.

``BadRequest`` stands for an answer 400 to HEAD, which has no body to say more.
"""
_STAGED = re.compile(r".+#\d+")
"""Files that obstore writes to before it moves them into place: no listing shows them, and a kill leaves them."""
_FULL = ("(os error 28)", "(os error 122)")


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
            credentials in the environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …) and nowhere else.
        patience_s: repeat a failing request for no longer than this, whatever the environment says: for a person who
            waits for an answer.
    """

    def __init__(self, uri: str, *, patience_s: float = math.inf) -> None:
        self.uri = uri.rstrip("/")
        self.root = Path(self.uri.removeprefix("file://")) if self.uri.startswith("file://") else None
        self._patient: LocalStore | S3Store
        self._curt: LocalStore | S3Store
        if self.root is not None:
            self.root.mkdir(parents=True, exist_ok=True)
            self._patient = self._curt = LocalStore(self.root, mkdir=True)
        else:
            seconds = min(retry_s(os.environ), patience_s)
            self._patient, self._curt = _s3(self.uri, os.environ, seconds), _s3(self.uri, os.environ, 0.0)
        self._away = False
        self._clock: tuple[float, float] | None = None

    @property
    def _objects(self) -> LocalStore | S3Store:
        """The client; one that does not repeat a request where repeating the last one was in vain.

        Work that has to stop says goodbye in several places, and must not wait as long in each of them.
        """
        return self._curt if self._away else self._patient

    def uri_of(self, path: str) -> str:
        """Absolute URI of a path below the root."""
        return f"{self.uri}/{path}"

    def path_of(self, uri: str) -> str | None:
        """Path below the root, or None for a URI that lies elsewhere."""
        prefix = f"{self.uri}/"
        whole = f"file://{uri}" if uri.startswith("/") else uri
        return whole.removeprefix(prefix) if whole.startswith(prefix) else None

    def now(self) -> float:
        """Seconds since the epoch by the store's own clock, the one that :attr:`Entry.modified` is read from.

        The clocks of two machines may be hours apart; ages are only ever differences on this one. It is read from
        the server once a minute.
        """
        if self.root is not None:
            return time.time()
        if self._clock is None or time.monotonic() - self._clock[0] > CLOCK_MEMORY_S:
            probe = f"{CLOCK}/{secrets.token_hex(8)}"
            self.write(probe, b"")
            entry = self.head(probe)
            self.delete(probe)
            if entry is None:
                raise RetryLater(f"store {self.uri}: an object that was just written is not there; try again")
            self._clock = (time.monotonic(), entry.modified.timestamp())
        read, then = self._clock
        return then + time.monotonic() - read

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
        with contextlib.suppress(FileNotFoundError), self._translated():
            obstore.delete(self._objects, path)

    def delete_folder(self, prefix: str) -> int:
        """Remove every object below a folder, and what writes that were killed left there; returns how many objects."""
        entries = [entry.path for entry in self.entries(prefix)]
        for path in entries:
            self.delete(path)
        for entry in self.staged(prefix):
            self.discard(entry)
        if self.root is not None:
            _remove_empty_folders(self.root / prefix)
        return len(entries)

    def staged(self, prefix: str) -> Iterator[Entry]:
        """What writes to a local store that are in progress, or were killed, have below a folder; never listed."""
        if self.root is None:
            return
        for file in sorted(path for path in (self.root / prefix).rglob("*#*") if _STAGED.fullmatch(path.name)):
            with contextlib.suppress(FileNotFoundError):  # the write has just ended
                stat = file.stat()
                modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                yield Entry(file.relative_to(self.root).as_posix(), stat.st_size, modified, None)

    def discard(self, entry: Entry) -> None:
        """Remove what :meth:`entries` or :meth:`staged` found."""
        if self.root is None:
            self.delete(entry.path)
        else:
            (self.root / entry.path).unlink(missing_ok=True)

    def local(self, path: str) -> Path | None:
        """The file or folder itself where the store is local, else None."""
        return self.root / path if self.root is not None else None

    def upload(self, file: Path, path: str) -> None:
        """Put a local file, in parts where it is large; nothing to do where it already lies in place."""
        if self.local(path) != file:
            with self._translated(), file.open("rb") as stream:
                obstore.put(self._objects, path, stream)

    def download(self, path: str, file: Path, *, sha256: str | None = None) -> None:
        """Stream an object into a local file, which appears whole or not at all.

        Raises:
            RetryLater: if the bytes that came are not those of ``sha256``.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        with part.open("wb") as target:
            found = self._stream(path, target.write)
        if sha256 is not None and found != sha256:
            raise RetryLater(f"{self.uri_of(path)}: other bytes came than were committed; call again")
        part.replace(file)

    def sha256(self, path: str) -> str:
        """SHA-256 of an object's bytes, read through; raises FileNotFoundError."""
        return self._stream(path, lambda _: None)

    def sync(self, paths: list[str]) -> None:
        """Flush local files and every folder above them to the disk, so that a commit never outlives what it names."""
        if self.root is None:
            return
        above = {folder for path in paths for folder in Path(path).parents}
        folders = sorted((self.root / folder for folder in above), reverse=True)  # what is inside comes first
        for target in [*(self.root / path for path in paths), *folders]:
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _stream(self, path: str, take: Callable[[bytes], object]) -> str:
        """Hand on an object's bytes; their SHA-256.

        Time ends the request for a large object before its end. The next one goes on there, as long as each brings
        something.
        """
        digest, num_bytes, begin = hashlib.sha256(), 0, 0
        options: GetOptions = {}
        with self._translated():
            while True:
                try:
                    answer = obstore.get(self._objects, path, options=options)
                    for chunk in answer.stream():
                        take(bytes(chunk))
                        digest.update(chunk)
                        num_bytes += len(chunk)
                    return digest.hexdigest()
                except PreconditionError:
                    raise RetryLater(f"{self.uri_of(path)} changed while it was read; call again") from None
                except GenericError:
                    if num_bytes == begin:
                        raise
                    begin = num_bytes
                    options = {"range": {"offset": begin}, "if_match": answer.meta["e_tag"]}

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
            self._away = False
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._refused(error) from None
        except FileNotFoundError as error:
            self._away = False
            if self.root is None and "NoSuchBucket" in str(error):
                raise self._no_bucket() from None
            raise
        except InvalidPathError as error:
            raise InputError(f"store {self.uri}: {_reason(error)}; rename it, or give a folder without it") from None
        except GenericError as error:
            if self.root is not None:
                raise OSError(f"store {self.uri}: {_reason(error)}") from error
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from None
            if _code(error) in REFUSALS:
                raise self._refused(error) from None
            if "169.254.169.254" in str(error):  # the last resort of every S3 client: the cloud's own credentials
                cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                raise InputError(f"store {self.uri}: there are no credentials in the environment; {cure}") from None
            self._away = True
            raise RetryLater(f"store {self.uri}: not reachable ({_reason(error)})") from None

    def _refused(self, error: Exception) -> InputError:
        code = _code(error)
        said = f"{_reason(error)} {code}".strip()
        return InputError(f"store {self.uri}: access refused ({said}); {REFUSALS.get(code, _KEYS)}")

    def _no_bucket(self) -> InputError:
        cure = "make demo makes it, or correct TELECINE_STORE"
        return InputError(f"store {self.uri}: there is no such bucket; {cure}")


@contextlib.contextmanager
def disk_full() -> Iterator[None]:
    """Turn a full disk or quota, wherever it is met, into :class:`RetryLater` in one sentence."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not _is_full(error):
            raise
        where = getattr(error, "filename", None) or str(error)
        raise RetryLater(f"there is no space left: {where}; free some, then call again to go on") from error


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    if isinstance(error, sqlite3.OperationalError):  # SQLite calls a quota, and no room for its index, an I/O error
        return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in _FULL)


def to_json(value: Any) -> bytes:
    """JSON as machines write it: sorted, one trailing newline, equal bytes for equal values."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def retry_s(environment: Mapping[str, str]) -> float:
    """TELECINE_STORE_RETRY_S; raises :class:`InputError`."""
    text = environment.get("TELECINE_STORE_RETRY_S") or str(RETRY_S)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 86400:
        raise InputError(f"TELECINE_STORE_RETRY_S must be seconds from 0 to 86400, got {text!r}")
    return value


def _s3(uri: str, environment: Mapping[str, str], seconds: float) -> S3Store:
    """A client that repeats for ``seconds``: what AWS_… says of it, plain http where the endpoint says so."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    client: ClientConfig = {
        "allow_http": urlsplit(endpoint).scheme == "http",
        "connect_timeout": f"{CONNECT_TIMEOUT_S} seconds",
        "timeout": f"{REQUEST_TIMEOUT_S} seconds",
    }
    retries: RetryConfig = {
        "max_retries": 1000 if seconds else 0,  # time is the limit, not the count
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
    config: S3Config = {"conditional_put": "etag"}
    try:
        return S3Store.from_url(uri, config=config, client_options=client, retry_config=retries)
    except GenericError as error:  # half a pair of keys, an endpoint that is no URL
        raise InputError(f"store {uri}: {_reason(error)}; {_KEYS}") from None


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


def _reason(error: Exception) -> str:
    """First line of obstore's message; the rest is its debug dump, and the servers' XML."""
    return mask(str(error).partition("\n")[0].partition("<?xml")[0].strip(" :"))


def _code(error: Exception) -> str:
    """S3's code for an error, empty where there is none: from the body, or from what stands for a body."""
    text = str(error)
    if found := re.search(r"<Code>(\w+)</Code>", text):
        return found[1]
    if "redirect without LOCATION" in text:
        return "PermanentRedirect"
    return "BadRequest" if "performing HEAD" in text and "400 Bad Request" in text else ""


def _remove_empty_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
