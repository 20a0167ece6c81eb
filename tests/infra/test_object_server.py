"""The drills' S3 server and moto's, held to one protocol, so that ours cannot drift from it; and ours over kill -9."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject

from telecine import buckets
from telecine.errors import InputError, RetryLater
from telecine.storage import Store

DRILLS = Path(__file__).parents[2] / "infra" / "drills"
KEYS = {"AWS_ACCESS_KEY_ID": "drill-key", "AWS_SECRET_ACCESS_KEY": "drill-secret"}
LARGE = 11 * 2**20


class Served:
    """An S3 server in a process of its own."""

    def __init__(self, command: list[str], port: int) -> None:
        self.command, self.port = command, port
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the server and wait until it answers."""
        process = subprocess.Popen(self.command, env=os.environ | KEYS, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def restart(self) -> None:
        """Kill it with -9 and start it again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = self.start()

    def admin(self) -> Minio:
        """Administration, as a person with the key does it."""
        return Minio(
            endpoint=f"127.0.0.1:{self.port}",
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            secure=False,
            region="us-east-1",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = _free_port()
    folder = tmp_path_factory.mktemp("s3")
    yield from _serving([str(DRILLS / "object_server.py"), "--folder", str(folder), "--port", str(port)], port)


@pytest.fixture(scope="module")
def moto() -> Iterator[Served]:
    port = _free_port()
    yield from _serving(["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port)


def _serving(arguments: list[str], port: int) -> Iterator[Served]:
    server = Served([sys.executable, *arguments], port)
    server.admin().make_bucket(bucket_name="telecine")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(params=["ours", "moto"])
def served(request: pytest.FixtureRequest) -> Served:
    server: Served = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def store(served: Served, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    return _store(served, monkeypatch, request)


@pytest.fixture
def own_store(ours: Served, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    return _store(ours, monkeypatch, request)


def _store(server: Served, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    environment = KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_REGION": "us-east-1"}
    for name, value in (environment | {"TELECINE_STORE_RETRY_S": "0.5"}).items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://telecine/{request.node.name.partition('[')[0]}")


def test_an_object_is_read_as_it_was_written(store: Store) -> None:
    store.write("a/b c.txt", b"one")
    store.write("a/b c.txt", b"three")
    assert store.read("a/b c.txt") == b"three"
    entry = store.head("a/b c.txt")
    assert entry and entry.size == 5 and entry.etag
    store.delete("a/b c.txt")
    store.delete("a/b c.txt")
    assert store.head("a/b c.txt") is None
    with pytest.raises(FileNotFoundError):
        store.read("a/b c.txt")


def test_one_of_many_racers_creates_an_object(store: Store) -> None:
    won: list[bytes] = []

    def race(name: bytes) -> None:
        if store.create("commit.json", name):
            won.append(name)

    racers = [threading.Thread(target=race, args=(b"%d" % index,)) for index in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1 and store.read("commit.json") == won[0]


def test_a_listing_has_every_key_in_order_over_many_pages(store: Store, served: Served) -> None:
    names = [f"list/{index % 7}/{index:04d} &ü" for index in range(30)]
    for name in names:
        store.write(name, b"x")
    store.write("listless", b"x")
    assert [entry.path for entry in store.entries("list")] == sorted(names)
    assert store.folders("list") == [str(index) for index in range(7)]
    root = store.uri.removeprefix("s3://telecine/")
    found = served.admin().list_objects(
        bucket_name="telecine", prefix=f"{root}/list/", recursive=True, extra_query_params={"max-keys": "4"}
    )
    assert [each.object_name for each in found] == sorted(f"{root}/{name}" for name in names)


def test_a_large_file_goes_up_in_parts_and_comes_back_in_ranges(store: Store, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    (tmp_path / "up").write_bytes(data)
    store.upload(tmp_path / "up", "large")
    entry = store.head("large")
    assert entry and entry.size == LARGE and entry.etag and "-" in entry.etag, "in parts"
    store.download("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    ranges = [(0, 9, data[:10]), (100, LARGE * 2, data[100:]), (LARGE - 5, "", data[-5:])]
    for start, stop, expected in ranges:
        reply = httpx.get(_link(store, "large"), headers={"Range": f"bytes={start}-{stop}"})
        assert reply.status_code == 206 and reply.content == expected


def _link(store: Store, path: str) -> str:
    import obstore

    return str(obstore.sign(store._objects, "GET", path, timedelta(minutes=5)))


def test_a_link_is_signed_for_one_object_and_one_deed(own_store: Store) -> None:
    own_store.write("signed", b"seen")
    link = _link(own_store, "signed")
    assert httpx.get(link).content == b"seen"
    for wrong in (link.replace("/signed?", "/other?"), link[:-1] + ("0" if link[-1] != "0" else "1")):
        assert httpx.get(wrong).status_code == 403


def test_unfinished_uploads_can_be_set_to_expire(store: Store, served: Served) -> None:
    buckets.prepare(store.uri)
    buckets.prepare(store.uri)
    rules = served.admin().get_bucket_lifecycle(bucket_name="telecine")
    assert rules and [rule.rule_id for rule in rules.rules] == ["telecine-unfinished-uploads"]


def test_many_objects_are_removed_with_one_request(store: Store, served: Served) -> None:
    for index in range(5):
        store.write(f"many/{index}&", b"x")
    root = store.uri.removeprefix("s3://telecine/")
    doomed = [DeleteObject(f"{root}/many/{index}&") for index in range(5)]
    assert list(served.admin().remove_objects(bucket_name="telecine", delete_object_list=doomed)) == []
    assert list(store.entries("many")) == []


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_wrong_key_is_refused(name: str, own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "wrong")
    with pytest.raises(InputError, match="access refused.*403"):
        Store(own_store.uri).write("a", b"x")


def test_a_wrong_session_token_is_refused_with_400(own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "wrong")
    with pytest.raises(InputError, match="access refused.*400 Bad Request InvalidToken.*; get new credentials"):
        Store(own_store.uri).write("a", b"x")


def test_what_was_answered_is_still_there_after_kill_9(ours: Served, own_store: Store) -> None:
    store = own_store
    acknowledged: list[int] = []
    stopping = threading.Event()

    def write() -> None:
        index = 0
        while not stopping.is_set():
            try:
                store.write(f"kept/{index:05d}", b"%d" % index * 500)
            except RetryLater:
                continue
            acknowledged.append(index)
            index += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        _grow(acknowledged, 20)
        ours.restart()
    stopping.set()
    writer.join()
    found = {entry.path: entry.size for entry in store.entries("kept")}
    assert len(acknowledged) > 60
    assert [index for index in acknowledged if found.get(f"kept/{index:05d}") != 500 * len(str(index))] == []
    assert all(store.read(path) == b"%d" % int(path[-5:]) * 500 for path in found)


def _grow(found: list[int], count: int, timeout_s: float = 30.0) -> None:
    deadline, before = time.monotonic() + timeout_s, len(found)
    while len(found) <= before + count:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
