"""What a component is given to read is what was committed, whatever a listing says."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telecine.errors import BadData, InputError, RetryLater
from telecine.reading import Folder, Reader, is_sha256
from telecine.storage import Entry, Store
from telecine.work import commits
from telecine.work.digests import Digests

PREFIX = "work/text.make/0123/attempts/one"


class StaleStore(Store):
    """A store whose listings do not know the newest object yet."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        yield from list(super().entries(prefix))[:-1]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def reader(s3_store: str, tmp_path: Path, scratch: Path) -> Reader:
    """A reader of a store with stale listings, in which a folder of three files is committed."""
    folder, digests = tmp_path / "made", Digests(tmp_path / "home")
    (folder / "text").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / "text" / name).write_text(name)
    (folder / "text-beside.txt").write_text("beside")
    store = Store(s3_store)
    files = commits.describe_files(folder, PREFIX, digests)
    commits.upload_files(store, folder, PREFIX, files)
    commits.publish(store, "work/text.make/0123/commit.json", {"attempt": "one", "files": files})
    return Reader(StaleStore(s3_store), scratch)


def test_a_stale_listing_takes_nothing_from_a_committed_folder(reader: Reader, s3_store: str) -> None:
    folder = reader.fetch(Store(s3_store).uri_of(f"{PREFIX}/text"))
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_a_committed_file_is_fetched_alone(reader: Reader, scratch: Path) -> None:
    assert reader.path(f"{PREFIX}/text/c.txt").read_text() == "c.txt"
    assert [path.name for path in (scratch / "store").rglob("*.txt")] == ["c.txt"]


def test_what_no_commit_names_is_taken_from_the_listing(reader: Reader, s3_store: str) -> None:
    for name in ("1", "2", "3"):
        Store(s3_store).write(f"loose/{name}", b"x")
    assert sorted(path.name for path in reader.path("loose").iterdir()) == ["1", "2"], "the listing is stale"


@pytest.fixture
def bucket(s3_store: str) -> Store:
    """A prefix in somebody's bucket, with three objects."""
    footage = Store(f"{s3_store.removesuffix('/store')}/footage")
    for name in ("a.mp4", "day one/b.mp4", "day one/b.txt"):
        footage.write(name, name.encode())
    return footage


def test_a_folder_in_a_bucket_is_read_a_file_at_a_time_and_its_copies_go(bucket: Store, tmp_path: Path) -> None:
    folder = Folder(bucket.uri, store_uri=f"file://{tmp_path}/store", home=tmp_path / "home")
    digests = folder.digests()
    assert list(digests) == ["a.mp4", "day one/b.mp4", "day one/b.txt"]
    assert not any(is_sha256(digest) for digest in digests.values()), "no object was read for it"
    wanted = {name: digests[name] for name in ("day one/b.mp4", "day one/b.txt")}
    with folder.at_hand(wanted) as here:
        found = {path.relative_to(here).as_posix(): path.read_text() for path in here.rglob("*") if path.is_file()}
        assert folder.digest(here / "day one" / "b.txt") == hashlib.sha256(b"day one/b.txt").hexdigest()
    assert found == {name: name for name in wanted}
    assert not here.exists()


def test_an_object_whose_name_is_no_path_is_refused(bucket: Store, tmp_path: Path) -> None:
    whole = bucket.uri.removeprefix("s3://")
    httpx.put(f"{os.environ['AWS_ENDPOINT_URL']}/{whole}/day//etc/evil.mp4", content=b"x").raise_for_status()
    folder = Folder(f"{bucket.uri}/day", store_uri=f"file://{tmp_path}/store", home=tmp_path / "home")
    with pytest.raises(InputError, match="day//etc/evil.mp4.*rename it"):
        folder.digests()


def test_an_object_that_changes_while_it_is_read_is_told_whatever_came_of_reading_it(
    bucket: Store, tmp_path: Path
) -> None:
    folder = Folder(bucket.uri, store_uri=f"file://{tmp_path}/store", home=tmp_path / "home")

    def read_while_it_changes() -> None:
        with folder.at_hand(folder.digests()):
            bucket.write("a.mp4", b"another")
            raise BadData("the file looks truncated")

    with pytest.raises(RetryLater, match=r"a\.mp4 changed while it was read"):
        read_while_it_changes()


def test_a_folder_of_this_machine_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("a")
    folder = Folder(str(tmp_path / "videos"), store_uri=f"file://{tmp_path}/store", home=tmp_path / "home")
    digests = folder.digests()
    assert digests == {"a.mp4": hashlib.sha256(b"a").hexdigest()}
    with folder.at_hand(digests) as here:
        assert here == tmp_path / "videos"
    with pytest.raises(RetryLater, match=r"a\.mp4 changed while it was read"), folder.at_hand(digests):
        (tmp_path / "videos" / "a.mp4").unlink()


def test_a_committed_folder_of_an_object_store_is_known_by_its_commit(
    reader: Reader, s3_store: str, tmp_path: Path
) -> None:
    folder = Folder(f"{s3_store}/{PREFIX}/text", store_uri=s3_store, home=tmp_path / "home")
    digests = folder.digests()
    assert digests == {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.txt", "b.txt", "c.txt")}
    with folder.at_hand({"b.txt": digests["b.txt"]}) as here:
        assert [path.name for path in here.iterdir()] == ["b.txt"]
