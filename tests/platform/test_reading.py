"""What a component is given to read is what was committed, whatever a listing says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from telecine.reading import Reader
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
