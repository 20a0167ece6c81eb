"""A hang is noticed, told and ended; two real ranks over gloo, one of them stopped or slow."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telecine_components.training.ledger import Activity, Ledger
from telecine_components.training.watchdog import RollCall, Watchdog, overdue

RULES = {"floor_s": 30.0, "step_ratio": 5.0, "patience_s": 600.0}


def activity(**values: Any) -> Activity:
    told = {"step": 7, "cause": "productive", "cause_s": 1.0, "step_s": 1.0, "median_step_s": 1.0}
    return Activity(**(told | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"step_s": 30.0}, ""),
        ({"step_s": 31.0}, "no step for 31 s (limit 30 s, the median step takes 1 s)"),
        ({"step_s": 31.0, "median_step_s": 12.0}, ""),
        ({"step_s": 61.0, "median_step_s": 12.0}, "no step for 61 s (limit 60 s, the median step takes 12 s)"),
        ({"step_s": 500.0, "median_step_s": None, "cause_s": 500.0}, ""),
        ({"step_s": 0.1, "cause": "checkpoint_save", "cause_s": 599.0}, ""),
        ({"cause": "checkpoint_save", "cause_s": 601.0}, "nothing has changed for 601 s (limit 600 s)"),
        ({"step_s": 700.0, "median_step_s": None, "cause_s": 700.0}, "nothing has changed for 700 s (limit 600 s)"),
    ],
)
def test_when_an_activity_has_lasted_too_long(values: dict[str, Any], words: str) -> None:
    assert overdue(activity(**values), **RULES) == words


def run_steps(ledger: Ledger, num: int) -> None:
    ledger.restored(0)
    for step in range(1, num + 1):
        with ledger.spend("productive"):
            time.sleep(0.01)
        ledger.step(step)


def test_a_hang_is_told_once_with_what_and_where_after_the_state_was_saved() -> None:
    ledger, told = Ledger(), []
    with Watchdog(ledger, on_hang=lambda w: told.append(w), save=lambda: told.append("saved"), floor_s=0.4):
        run_steps(ledger, 5)
        with ledger.spend("data_wait"):
            time.sleep(1.5)
    assert told[0] == "saved" and len(told) == 2
    assert told[1].startswith("no step for ") and "step 5, in data_wait for " in told[1]
    assert "at test_watchdog.py:" in told[1] and "test_a_hang_is_told_once" in told[1]


def test_neither_a_state_that_cannot_be_saved_nor_one_that_takes_for_ever_keeps_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> None:
        raise OSError("no space left")

    ledger, told = Ledger(), []
    with Watchdog(ledger, on_hang=lambda words: told.append(words), save=broken, floor_s=0.2):
        run_steps(ledger, 3)
        with ledger.spend("productive"):
            time.sleep(1.0)
    assert len(told) == 1 and "OSError: no space left" in caplog.text


def test_steps_and_long_evaluations_wake_no_watchdog() -> None:
    ledger, told = Ledger(), []
    with Watchdog(ledger, on_hang=lambda words: told.append(words), floor_s=0.3):
        run_steps(ledger, 60)
        with ledger.spend("evaluation"):
            time.sleep(1.0)
        run_steps(ledger, 5)
    time.sleep(0.5)
    assert told == [] and threading.active_count() < 20


class Board:
    """A store of ranks' words in memory, whose ranks may fall silent."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.words[key] = value

    def get(self, key: str) -> bytes:
        return self.words[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.words for key in keys)


def test_a_roll_call_names_who_is_silent_and_who_is_at_something_else() -> None:
    board = Board()
    ranks = [RollCall(board, rank, 5) for rank in range(5)]
    waits = activity(step=7, cause="productive")
    for rank, at in ((0, waits), (1, waits), (2, activity(step=7, cause="data_wait")), (3, waits)):
        ranks[rank].say(at)
    speaking = threading.Event()

    def go_on() -> None:
        while not speaking.wait(0.02):
            ranks[2].say(activity(step=7, cause="data_wait"))
            ranks[3].say(waits)

    thread = threading.Thread(target=go_on)
    thread.start()
    words = ranks[0].ask(waits, 0.2)
    speaking.set()
    thread.join()
    assert words == (
        "rank 1 is silent, last heard at step 7 in productive; rank 4 is silent and never said a word; "
        "rank 2 is at step 7 in data_wait"
    )


def test_a_rank_that_falls_silent_is_missed_and_one_that_parted_or_never_spoke_is_not() -> None:
    board = Board()
    ranks = [RollCall(board, rank, 4) for rank in range(4)]
    for rank in (1, 2):
        ranks[rank].say(activity())
    ranks[2].part()
    for _ in range(5):
        ranks[0].say(activity())
        ranks[0].listen(2.0)
    assert ranks[0].silent(8.0) == ""
    assert ranks[0].silent(7.0) == "rank 1 says nothing for 8 s (limit 7 s)"
    ranks[3].listen(9.0)
    ranks[3].listen(9.0)
    assert ranks[3].silent(8.0) == "rank 0 says nothing for 9 s (limit 8 s)", "who follows hears nobody else"
    ranks[1].say(activity())
    ranks[0].listen(2.0)
    assert ranks[0].silent(1.0) == ""


@pytest.mark.parametrize("cause", ["checkpoint_save", "evaluation"])
def test_a_silent_rank_ends_one_that_waits_for_it_outside_a_step_too(cause: str) -> None:
    board, told = Board(), []
    RollCall(board, 1, 2).say(activity(step=4, cause=cause))
    ledger = Ledger()
    with Watchdog(ledger, on_hang=told.append, roll_call=RollCall(board, 0, 2), floor_s=0.4):
        run_steps(ledger, 5)
        with ledger.spend(cause):
            time.sleep(1.5)
    (words,) = told
    assert words.startswith("rank 1 says nothing for ") and f"step 5, in {cause} for " in words
    assert words.endswith(f"rank 1 is silent, last heard at step 4 in {cause}")
    assert json.loads(board.words["telecine-rank-0"]) == {"parted": True}


def test_a_roll_call_of_many_is_short() -> None:
    words = RollCall(Board(), 0, 100).ask(activity(), 0.0)
    assert words.endswith("rank 8 is silent and never said a word and 91 more")
    assert RollCall(Board(), 0, 1).ask(activity(), 0.0) == "all ranks say the same"


RANK = """
import json, logging, os, signal, sys, time
import torch, torch.distributed as dist
from telecine_components.training.ledger import Ledger
from telecine_components.training.straggler import StragglerWatch
from telecine_components.training.watchdog import RollCall, Watchdog

logging.basicConfig(level=logging.INFO, format="%(message)s")
folder, rank, plant = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/ranks", 2), rank=rank, world_size=2)
ledger, straggler = Ledger(), StragglerWatch(rank=rank, window=10)
roll_call = RollCall(dist.FileStore(f"{folder}/roll_call", 2), rank, 2)
saved = lambda: open(f"{folder}/saved-{rank}.json", "w").write(json.dumps(ledger.document()))
windows, lost_s = [], 0.0
with Watchdog(ledger, roll_call=roll_call, floor_s=1.0, save=saved):
    ledger.restored(0)
    for step in range(1, 21):
        if plant == "hung" and rank == 1 and step == 15:
            os.kill(os.getpid(), signal.SIGSTOP)
        if plant == "data" and rank == 1 and step == 15:
            with ledger.spend("data_wait"):
                time.sleep(60)
        if plant == "rested" and step == 15:
            os.kill(os.getpid(), signal.SIGSTOP)
        with ledger.spend("productive"):
            began = time.perf_counter()
            time.sleep(0.06 if plant == "slow" and rank == 1 else 0.02)
            compute_s = time.perf_counter() - began
            dist.all_reduce(torch.ones(4))
        ledger.step(step)
        if window := straggler.step(step, compute_s=compute_s):
            ledger.move(window.lost_s, "productive", "straggler")
            windows.append(window.words)
            lost_s += window.lost_s
print(json.dumps({"windows": windows, "lost_s": lost_s, "total": ledger.total()}))
dist.destroy_process_group()
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Callable[[str], "list[subprocess.Popen[str]]"]]:
    """Start two ranks, in one of which something is planted."""
    started: list[subprocess.Popen[str]] = []

    def start(plant: str) -> "list[subprocess.Popen[str]]":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        for rank in range(2):
            command = [sys.executable, "-P", "-c", RANK, str(tmp_path), str(rank), plant]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_slow_rank_is_named_and_waiting_for_it_is_no_productive_time(ranks: Any) -> None:
    processes = ranks("slow")
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        told = json.loads(out.splitlines()[-1])
        assert len(told["windows"]) == 2 and all(words.startswith("rank 1 takes 0.06") for words in told["windows"])
        assert told["total"]["straggler"] == pytest.approx(20 * 0.04, rel=0.1)
        assert told["total"]["straggler"] == pytest.approx(told["lost_s"])


@pytest.mark.parametrize(
    ("plant", "words"),
    [("hung", "rank 1 is silent, last heard at step "), ("data", "rank 1 is .*at step 14 in data_wait")],
)
def test_a_hung_rank_is_named_and_the_others_end_to_be_tried_again(
    ranks: Any, tmp_path: Path, plant: str, words: str
) -> None:
    first, second = ranks(plant)
    began = time.monotonic()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 75, err
    assert "event=hang reason='no step for " in err and "step 14, in productive for " in err
    assert re.search(words, err), err
    assert "all_reduce" in err, "where it waits"
    assert "not_saved" not in err
    document = json.loads((tmp_path / "saved-0.json").read_text())
    assert document["step"] == 14 and document["total"]["productive"] > 1.0
    assert time.monotonic() - began < 60
    if plant == "data":
        second.wait(10)
        assert second.returncode in (75, 1), "its own watchdog, unless gloo first tells it that the other rank is gone"


def test_a_job_that_was_stopped_as_a_whole_goes_on(ranks: Any) -> None:
    processes = ranks("rested")
    for process in processes:
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
            assert process.poll() is None
            time.sleep(0.05)
    time.sleep(3.0)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
