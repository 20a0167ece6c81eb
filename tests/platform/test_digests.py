"""The memory of digests, which every process of a home shares."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from telecine.errors import RetryLater
from telecine.work.digests import Digests

NUM_PROCESSES = 6


def _open_at_once(home: Path, start: Barrier) -> None:
    start.wait()
    for _ in range(3):
        memory = Digests(home)
        memory.file(home / "file")
        memory._memory.close()


def test_processes_that_open_and_close_the_memory_at_once_all_get_their_answer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(15):
        home = tmp_path / str(attempt)
        home.mkdir()
        (home / "file").write_bytes(b"x")
        start = context.Barrier(NUM_PROCESSES)
        processes = [context.Process(target=_open_at_once, args=(home, start)) for _ in range(NUM_PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * NUM_PROCESSES


def test_a_file_that_goes_while_its_folder_is_read_is_no_folder_that_is_missing(tmp_path: Path) -> None:
    """As where films are being copied into it: ``film.mp4.part`` has another name a moment later."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4.part"):
        (folder / name).write_text(name)

    class WhileCopying(Digests):
        def file(self, path: Path) -> str:
            digest = super().file(path)
            (folder / "b.mp4.part").rename(folder / "b.mp4")
            return digest

    with pytest.raises(RetryLater, match=r"b\.mp4\.part went while its folder was read; call again"):
        WhileCopying(tmp_path / "home").tree(folder)
    assert len(Digests(tmp_path / "home").below(folder)) == 2
    with pytest.raises(FileNotFoundError):
        Digests(tmp_path / "home").tree(tmp_path / "none")
