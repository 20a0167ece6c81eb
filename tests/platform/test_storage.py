"""One contract on a disk and on an S3 server: whole objects, one creator, one clock, errors with their exit code."""

import errno
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from telecine import buckets, cli, settings
from telecine.errors import InputError, RetryLater
from telecine.storage import Store, disk_full

MIB = 2**20


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of either kind."""
    if request.param == "file":
        return Store(f"file://{tmp_path / 'store'}")
    return Store(request.getfixturevalue("s3_store"))


def test_an_object_is_replaced_whole_listed_below_its_folder_and_gone_when_deleted(store: Store) -> None:
    store.write("a/b/one.txt", b"1")
    store.write("a/b/one.txt", b"11")
    store.write("a/c d/ü.txt", b"2")
    assert store.read("a/b/one.txt") == b"11"
    assert [(entry.path, entry.size) for entry in store.entries("a")] == [("a/b/one.txt", 2), ("a/c d/ü.txt", 1)]
    assert store.folders("a") == ["b", "c d"]
    assert [entry.path for entry in store.entries("a/b/on")] == [], "a folder is no prefix of a name"
    store.delete("a/b/one.txt")
    store.delete("a/b/one.txt")
    assert store.head("a/b/one.txt") is None
    assert store.delete_folder("a") == 1
    assert list(store.entries("")) == []


def test_what_is_not_there_is_no_error_to_ask_for_and_one_to_read(store: Store) -> None:
    assert store.head("none") is None
    assert store.read_json("none") is None
    assert store.folders("none") == []
    with pytest.raises(FileNotFoundError):
        store.read("none")


def test_one_of_many_racers_creates(store: Store) -> None:
    def race(path: str) -> list[int]:
        with ThreadPoolExecutor(8) as racers:
            created = list(racers.map(lambda racer: store.create(path, str(racer).encode()), range(8)))
        return [racer for racer, won in enumerate(created) if won]

    for path in (f"race/{turn}" for turn in range(5)):
        winners = race(path)
        assert len(winners) == 1
        assert store.read(path) == str(winners[0]).encode()


def test_a_large_file_goes_up_in_parts_and_comes_down_as_it_was(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(17 * MIB))
    store.upload(file, "large")
    entry = store.head("large")
    assert entry is not None
    assert entry.size == 17 * MIB
    assert store.root is not None or "-" in str(entry.etag), "an object in parts has a tag that counts them"
    store.download("large", tmp_path / "back", sha256=store.sha256("large"))
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_a_download_of_other_bytes_than_were_committed_leaves_no_file(store: Store, tmp_path: Path) -> None:
    store.write("object", b"other")
    with pytest.raises(RetryLater, match="other bytes came than were committed"):
        store.download("object", tmp_path / "file", sha256="0" * 64)
    assert not (tmp_path / "file").exists()


def test_ages_are_read_on_the_stores_clock(store: Store) -> None:
    store.write("young", b"")
    entry = store.head("young")
    assert entry is not None
    assert -2.0 < store.now() - entry.modified.timestamp() < 10.0
    assert abs(store.now() - datetime.now(UTC).timestamp()) < 5.0


def test_the_bucket_is_made_once_and_forgets_unfinished_uploads(s3_store: str) -> None:
    from telecine.buckets import _client

    buckets.prepare(s3_store)
    buckets.prepare(s3_store)
    bucket = s3_store.removeprefix("s3://").partition("/")[0]
    lifecycle = _client(os.environ).get_bucket_lifecycle(bucket_name=bucket)
    assert lifecycle is not None
    rules = [rule.abort_incomplete_multipart_upload for rule in lifecycle.rules]
    assert [rule.days_after_initiation for rule in rules] == [1]


def test_a_signed_link_opens_without_credentials_and_only_that_object(s3_store: str) -> None:
    store = Store(s3_store)
    store.write("films/a b.mp4", b"film")
    link = buckets.signed_link(store.uri_of("films/a b.mp4"), seconds=60)
    assert urlopen(link).read() == b"film"  # noqa: S310 - http to a server of this process
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in link
    with pytest.raises(HTTPError):
        urlopen(buckets.signed_link(store.uri_of("films/none.mp4")))  # noqa: S310 - as above
    with pytest.raises(InputError, match="a signed link can live 1 to 604800 s, got 0"):
        buckets.signed_link(store.uri_of("films/a b.mp4"), seconds=0)


def test_telecine_link_prints_what_a_browser_opens(
    s3_store: str, deployment: settings.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(deployment.store_uri).write("report.html", b"here")
    assert cli.main(["link", f"{deployment.store_uri}/report.html"]) == 0
    assert capsys.readouterr().out.strip() == f"{deployment.store_uri}/report.html"
    monkeypatch.setenv("TELECINE_STORE", s3_store)
    Store(s3_store).write("report.html", b"there")
    assert cli.main(["link", f"{s3_store}/report.html"]) == 0
    assert urlopen(capsys.readouterr().out.strip()).read() == b"there"  # noqa: S310 - as above
    assert cli.main(["link", f"{s3_store}/none.html"]) == 78
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.read("x"),
        lambda store: store.write("x", b""),
        lambda store: store.create("x", b""),
        lambda store: store.delete("x"),
        lambda store: list(store.entries("x")),
        lambda store: store.now(),
    ],
)
def test_a_missing_bucket_is_a_wrong_input_that_says_what_to_do(s3_store: str, use: Callable[[Store], object]) -> None:
    with pytest.raises(InputError, match="there is no such bucket; make demo makes it, or correct TELECINE_STORE"):
        use(Store("s3://telecine-no-such-bucket/store"))


def test_an_unreachable_endpoint_is_tried_for_a_while_and_then_told_to_come_back(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_free_port()}")
    store, began = Store(s3_store), time.monotonic()
    with pytest.raises(RetryLater, match="not reachable"):
        store.read("x")
    assert time.monotonic() - began > 1.0, "TELECINE_STORE_RETRY_S is 2"
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(RetryLater, match="not reachable"):
            store.write("x", b"")
    assert time.monotonic() - began < 1.5, "known to be away, it is asked once each"
    with pytest.raises(RetryLater, match="not reachable"):
        buckets.prepare(s3_store)


def test_no_credentials_at_all_are_a_wrong_input(s3_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Store(s3_store).read("x")


@pytest.fixture
def refusing(s3_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], None]]:
    """A server that answers every request with a status and S3's code for it, which are chosen by a call."""
    said: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{said['code']}</Code><Message>no</Message></Error>".encode()
            self.send_response(said["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield lambda status, code: said.update(status=status, code=code)
        server.shutdown()


class Breaking(BaseHTTPRequestHandler):
    """Serves one object, and ends each answer after some of it, as a time limit does."""

    protocol_version = "HTTP/1.1"
    whole, most, tag = bytes(range(251)) * 120_000, 12 * MIB, '"one"'
    asked: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.asked.append(begin)
        is_other = self.headers["If-Match"] not in (None, self.tag)
        self.send_response(412 if is_other else 206 if begin else 200)
        body = b"" if is_other else self.whole[begin:]
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Range": f"bytes {begin}-{len(self.whole) - 1}/{len(self.whole)}",
            "ETag": self.tag,
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.most])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def test_a_large_object_that_takes_several_requests_comes_whole_and_of_one_version(
    s3_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TELECINE_STORE_RETRY_S", "0")
        Store(s3_store).download("film.mp4", tmp_path / "film.mp4")
        assert (tmp_path / "film.mp4").read_bytes() == Breaking.whole
        assert len(Breaking.asked) >= 3 and Breaking.asked == sorted(set(Breaking.asked))

        def changing(chunk: bytes) -> None:
            Breaking.tag = '"two"'

        with pytest.raises(RetryLater, match=r"film\.mp4 changed while it was read; call again"):
            Store(s3_store)._stream("film.mp4", changing)
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "cure"),
    [
        (400, "ExpiredToken", "get new credentials"),
        (400, "InvalidToken", "get new credentials"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
        (301, "PermanentRedirect", "set AWS_REGION"),
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_would_be_refused_again_is_a_wrong_input_for_both_clients(
    s3_store: str, refusing: Callable[[int, str], None], status: int, code: str, cure: str
) -> None:
    refusing(status, code)
    store = Store(s3_store)
    for use in (lambda: store.read("x"), lambda: store.write("x", b""), lambda: list(store.entries("x"))):
        with pytest.raises(InputError, match=f"access refused .*; {cure}"):
            use()
    for ask in (lambda: store.head("x"), lambda: buckets.prepare(s3_store)):  # HEAD is answered without a code
        with pytest.raises(InputError, match="access refused"):
            ask()


def test_what_a_server_may_do_next_time_is_worth_another_try(
    s3_store: str, refusing: Callable[[int, str], None]
) -> None:
    refusing(400, "RequestTimeout")
    with pytest.raises(RetryLater, match="400 Bad Request"):
        Store(s3_store).write("x", b"")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/full"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/full"),
        OSError("store file:///full: Unable to copy data to file: No space left on device (os error 28)"),
        OSError("store file:///full: Unable to copy data to file: Disk quota exceeded (os error 122)"),
    ],
)
def test_no_room_on_a_disk_is_worth_another_try(error: OSError) -> None:
    with pytest.raises(RetryLater, match="there is no space left: .*/full.*; free some"), disk_full():
        raise error


def test_no_room_for_a_database_is_worth_another_try_and_another_trouble_is_none(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "full.sqlite")
    database.execute("create table rows (text)")
    database.execute("pragma max_page_count = 3")
    with pytest.raises(RetryLater, match="there is no space left: database or disk is full"), disk_full():
        database.execute("insert into rows values (?)", ("x" * 100_000,))
    with pytest.raises(sqlite3.OperationalError, match="no such table"), disk_full():
        database.execute("select * from nowhere")


def test_a_removed_folder_takes_with_it_what_a_killed_write_left(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    for name in ("a/b/one", "a/two", "beside"):
        store.write(name, b"1")
        (tmp_path / f"{name}#1").write_bytes(b"half")
    assert [entry.path for entry in store.entries("a")] == ["a/b/one", "a/two"], "no listing shows it"
    assert store.delete_folder("a") == 2
    assert not (tmp_path / "a").exists()
    assert [entry.path for entry in store.staged("")] == ["beside#1"]


def test_a_flush_reaches_every_new_folder_up_to_the_root(tmp_path: Path) -> None:
    program = """
import sys
from telecine.storage import Store
store = Store(sys.argv[1])
store.write("work/a/b/commit.json", b"{}")
sys.addaudithook(lambda event, what: print(what[0]) if event == "open" else None)
store.sync(["work/a/b/commit.json"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"file://{tmp_path}"], capture_output=True, text=True, check=True
    )
    above = ["work/a/b/commit.json", "work/a/b", "work/a", "work", ""]
    assert done.stdout.split() == [str(tmp_path / path) for path in above], "what is inside comes first"


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_retry_time_that_is_none_is_refused(s3_store: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELECINE_STORE_RETRY_S", text)
    with pytest.raises(InputError, match=f"TELECINE_STORE_RETRY_S must be seconds from 0 to 86400, got '{text}'"):
        Store(s3_store)


@pytest.mark.parametrize(
    "variables",
    [
        {"TELECINE_STORE": "s3://name:pass-word@bucket/store"},
        {"TELECINE_STORE": "s3://bucket/store", "TELECINE_TRACKING_URI": "https://name:pass-word@mlflow.example"},
    ],
)
def test_credentials_in_a_uri_are_refused_without_being_repeated(variables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must not hold credentials") as caught:
        settings.from_environment({"TELECINE_HOME": str(tmp_path), **variables})
    assert "pass-word" not in str(caught.value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
