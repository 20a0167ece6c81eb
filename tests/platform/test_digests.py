"""The memory of digests, which every process of a home shares."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

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
