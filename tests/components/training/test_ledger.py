"""Where the time went: known answers, two restarts, and planted delays in real processes that are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.storage import Store
from telecine.work import attempts
from telecine_components.training import ledger as ledgers
from telecine_components.training.ledger import CAUSES, AttemptTimes, Ledger, account, attempt_times, productive_ratio


class Clock:
    """Time that passes when told."""

    def __init__(self, start: float) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now

    def spend(self, ledger: Ledger, cause: str, seconds: float) -> None:
        with ledger.spend(cause):
            self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(born=990.0, clock=clock, wall=clock)


def seen(total: dict[str, float]) -> dict[str, float]:
    """Causes that got any time."""
    assert tuple(total) == CAUSES
    return {cause: round(seconds, 6) for cause, seconds in total.items() if seconds}


# One process


def test_time_before_the_ledger_is_initialisation_and_uncovered_time_is_unattributed(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now += 3
    clock.spend(ledger, "productive", 7)
    assert seen(ledger.total()) == {"init": 10, "productive": 7, "unattributed": 3}
    assert productive_ratio(ledger.total()) == 7 / 20


def test_an_inner_cause_pauses_the_outer_one(ledger: Ledger, clock: Clock) -> None:
    with ledger.spend("productive"):
        clock.now += 1
        with ledger.spend("checkpoint_save"):
            clock.now += 2
            clock.spend(ledger, "data_wait", 4)
        clock.now += 8
    assert seen(ledger.total()) == {"init": 10, "productive": 9, "checkpoint_save": 2, "data_wait": 4}


def test_a_block_that_raises_gives_back_the_cause(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(OSError, match="full"), ledger.spend("evaluation"), ledger.spend("data_wait"):
        raise OSError("full")
    assert ledger.activity().cause is None
    clock.now += 5
    assert seen(ledger.total()) == {"init": 10, "unattributed": 5}


def test_the_rest_has_a_cause_that_blocks_pause(ledger: Ledger, clock: Clock) -> None:
    clock.now += 1
    with ledger.spend("evaluation"):
        ledger.rest("checkpoint_save")
        clock.now += 2
    clock.now += 4
    clock.spend(ledger, "evaluation", 8)
    assert seen(ledger.total()) == {"init": 10, "unattributed": 1, "evaluation": 10, "checkpoint_save": 4}
    with pytest.raises(ValueError, match="Ledger.rest: cause must be one of .*, got 'queue'"):
        ledger.rest("queue")


def test_another_rest_takes_the_place_of_the_one_before(ledger: Ledger, clock: Clock) -> None:
    ledger.rest("init")
    clock.now += 1
    ledger.rest("lost_work")
    clock.now += 2
    assert ledger.activity().cause == "lost_work"
    assert seen(ledger.total()) == {"init": 11, "lost_work": 2}
    killed = ledger.times()
    later = times(clock.now, clock.now + 5, init=5, restored=0)
    assert seen(account([killed, later], clock.now + 5)) == {"init": 16, "lost_work": 2}


def test_the_time_of_a_block_that_has_not_ended_is_there(ledger: Ledger, clock: Clock) -> None:
    with ledger.spend("compile"):
        clock.now += 5
        assert seen(ledger.total()) == {"init": 10, "compile": 5}
        clock.now += 1
    assert seen(ledger.total()) == {"init": 10, "compile": 6}


@pytest.mark.parametrize("cause", ["queue", "image", "lost_work", "unattributed", "lunch"])
def test_a_cause_that_no_process_can_measure_is_refused(ledger: Ledger, cause: str) -> None:
    with pytest.raises(ValueError, match=f"cause must be one of init, .*, got '{cause}'"), ledger.spend(cause):
        pass
    with pytest.raises(ValueError, match="Ledger.move"):
        ledger.move(1.0, "productive", cause)
    with pytest.raises(ValueError, match="Ledger.move: seconds must be at least 0"):
        ledger.move(-1.0, "productive", "straggler")


def test_waiting_for_a_straggler_is_taken_out_of_productive_time_as_far_as_there_is_any(
    ledger: Ledger, clock: Clock
) -> None:
    clock.spend(ledger, "productive", 10)
    ledger.move(4, "productive", "straggler")
    assert seen(ledger.total()) == {"init": 10, "productive": 6, "straggler": 4}
    ledger.move(100, "productive", "straggler")
    assert seen(ledger.total()) == {"init": 10, "straggler": 10}


def test_a_step_takes_what_it_waits_for_and_computes_but_no_checkpoint(ledger: Ledger, clock: Clock) -> None:
    clock.spend(ledger, "init", 100)
    ledger.restored(5)
    for step, seconds in enumerate((2, 4, 6), start=6):
        clock.spend(ledger, "data_wait", 1)
        clock.spend(ledger, "productive", seconds)
        assert ledger.step(step) == seconds + 1
        clock.spend(ledger, "evaluation", 50)
    clock.spend(ledger, "productive", 9)
    with ledger.spend("checkpoint_save"):
        clock.now += 30
        now = ledger.activity()
    assert (now.step, now.cause, now.cause_s, now.step_s, now.median_step_s) == (8, "checkpoint_save", 30, 9, 5)


def test_a_rollback_makes_the_steps_since_its_checkpoint_lost_work(ledger: Ledger, clock: Clock) -> None:
    ledger.restored(0)
    for step in range(1, 8):
        clock.spend(ledger, "productive", 1)
        ledger.step(step)
        if step in (2, 4, 6):
            ledger.mark(step)
    ledger.rolled_back(4)
    assert seen(ledger.total()) == {"init": 10, "productive": 4, "lost_work": 3}
    clock.spend(ledger, "productive", 2)
    assert ledger.step(5) == 2
    assert seen(ledger.total()) == {"init": 10, "productive": 6, "lost_work": 3}
    ledger.mark(5)
    times = ledger.times()
    assert (times.restored, list(times.marks)) == (0, [(0, 0.0), (2, 2.0), (4, 4.0), (5, 6.0)])


def test_waiting_for_a_straggler_is_taken_from_before_and_after_a_mark(ledger: Ledger, clock: Clock) -> None:
    ledger.restored(0)
    for step in range(1, 11):
        clock.spend(ledger, "productive", 4)
        ledger.step(step)
        if step == 5:
            ledger.mark(step)
    ledger.move(20, "productive", "straggler")
    assert list(ledger.times().marks) == [(0, 0.0), (5, 10.0)]
    clock.spend(ledger, "productive", 4)
    ledger.step(11)
    ledger.rolled_back(5)
    assert seen(ledger.total()) == {"init": 10, "productive": 10, "straggler": 20, "lost_work": 14}


# Several attempts


def times(born: float, seen: float, **seconds: Any) -> AttemptTimes:
    told = {name: seconds.pop(name) for name in ("restored", "marks", "submitted", "placed") if name in seconds}
    return AttemptTimes(born=born, seen=seen, seconds=seconds, **told)


def test_two_restarts() -> None:
    """100 asked; 110 born, killed at 200 after step 9, checkpoint 5; 230 to 300, killed before it restored anything;
    then 310 until 400 from step 5.
    """
    first = times(
        110,
        200,
        submitted=100,
        placed=104,
        init=20,
        productive=63,
        checkpoint_save=5,
        restored=0,
        marks=[(0, 0), (5, 35)],
    )
    second = times(230, 300, init=60)
    third = times(
        310, 400, init=20, checkpoint_restore=10, productive=55, restored=5, marks=[(5, 0), (8, 33)], placed=305
    )
    assert seen(account([third, first, second], 400)) == {
        "queue": 4 + 30 + 5,
        "image": 6 + 5,
        "init": 100,
        "checkpoint_save": 5,
        "checkpoint_restore": 10,
        "productive": 35 + 55,
        "lost_work": 63 - 35,
        "unattributed": 2 + 10 + 5,
    }


def test_the_oldest_checkpoint_that_was_gone_back_to_counts_for_every_attempt_before() -> None:
    """The second saved step 12 and the third could not read it, nor step 10: it went on from 4."""
    first = times(0, 100, productive=100, restored=0, marks=[(0, 0), (4, 40), (10, 100)])
    second = times(100, 150, productive=50, restored=10, marks=[(10, 0), (12, 20)])
    third = times(150, 160, productive=10, restored=4, marks=[(4, 0)])
    assert seen(account([first, second, third], 160)) == {"productive": 40 + 10, "lost_work": 60 + 50}
    assert seen(account([first, second], 150)) == {"productive": 120 + 0 + 30}


def test_dead_time_until_now_is_queue() -> None:
    assert seen(account([times(0, 10, productive=10)], 25)) == {"queue": 15, "productive": 10}
    assert account([], 25) == dict.fromkeys(CAUSES, 0.0)
    assert productive_ratio(account([], 25)) == 0.0


def test_clocks_that_disagree_make_no_negative_time() -> None:
    first = times(0, 100, submitted=20, placed=-5, productive=120)
    second = times(90, 80, submitted=500, placed=500, init=0)
    total = account([first, second], 70)
    assert all(value >= 0 for value in total.values())
    assert seen(total) == {"productive": 120}


def test_causes_add_up_to_the_whole_span_whatever_happened() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        clock = Clock(rng.uniform(0, 100))
        asked, history, checkpoints = clock.now, [], [0]
        for _ in range(rng.integers(1, 6)):
            submitted = clock.now
            clock.now += rng.uniform(0, 9)
            placed = clock.now if rng.random() < 0.5 else None
            clock.now += rng.uniform(0, 9)
            born = clock.now
            clock.now += rng.uniform(0, 9)
            ledger = Ledger(born=born, submitted=submitted, placed=placed, earlier=history, clock=clock, wall=clock)
            restored = int(rng.choice(checkpoints))
            ledger.restored(restored)
            checkpoints = [step for step in checkpoints if step <= restored]
            for step in range(restored + 1, restored + rng.integers(2, 10)):
                clock.now += float(rng.choice((0, 0.5)))
                clock.spend(ledger, str(rng.choice(ledgers.SPENT)), rng.uniform(0, 2))
                clock.spend(ledger, "productive", rng.uniform(0, 2))
                ledger.step(step)
                if rng.random() < 0.4:
                    ledger.mark(step)
                    checkpoints.append(step)
                elif rng.random() < 0.2:
                    ledger.rolled_back(checkpoints[-1])
            assert sum(ledger.total().values()) == pytest.approx(clock.now - asked)
            assert min(ledger.total().values()) >= 0
            history.append(ledger.times())


def test_a_state_is_read_as_it_was_written(ledger: Ledger, clock: Clock) -> None:
    ledger.restored(0)
    clock.spend(ledger, "productive", 4)
    ledger.mark(3)
    state = {"started": 990.0, "submitted": None, "placed": None, "beat": clock.now, "ledger": ledger.document()}
    assert attempt_times(json.loads(json.dumps(state))) == ledger.times()
    assert attempt_times({"beat": 5.0}) is None, "of a release without ledgers"
    bare = attempt_times({"started": 10.0, "submitted": 1.0, "placed": None, "beat": 15.0})
    assert bare is not None and seen(account([bare], 15)) == {"queue": 9, "init": 5}


def test_a_reader_in_another_thread_never_sees_time_twice() -> None:
    ledger, seen_bad, stop = Ledger(), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            total = ledger.total()
            spent = sum(total.values())
            now = time.time()
            if spent > now - ledger.times().born + 0.05:
                seen_bad.append(spent)

    reader = threading.Thread(target=read)
    reader.start()
    began = time.perf_counter()
    for step in range(3000):
        with ledger.spend("data_wait"), ledger.spend("productive"):
            pass
        ledger.step(step)
    stop.set()
    reader.join()
    assert seen_bad == []
    assert time.perf_counter() - began < 5


# Real processes

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from telecine.context import Context
from telecine.storage import Store
from telecine.work import beginning
from telecine.work.attempts import Attempt
from telecine_components.training.ledger import open_ledger

root, restored, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store, prefix = Store(f"file://{root}"), "work/toy.train/key"
began = beginning.of_attempt(store, prefix, run="r", task="t")
with Attempt(store, prefix, run="r", task="t", superseded=lambda: False, beginning=began) as attempt:
    ctx = Context(component="toy.train", key="key", run="r", attempt=attempt.id, dir=root, scratch=root,
                  code_digest="0" * 64,
                  checkpoints=None, tracker=None, store=store, _reader=None, _digests=None, _items=None,
                  _attempt=attempt, _preempted=attempt.stop)
    ledger = open_ledger(ctx)

    def plant(cause, seconds, step=-1):
        with ledger.spend(cause):
            began = time.perf_counter()
            time.sleep(seconds)
            spent = time.perf_counter() - began
        with (root / "planted.jsonl").open("a") as file:
            print(json.dumps([attempt.id, cause, step, spent]), file=file)

    plant("checkpoint_restore", 0.3)
    ledger.restored(restored)
    for step in range(restored + 1, last + 1):
        plant("data_wait", 0.05)
        plant("productive", 0.1, step)
        ledger.step(step)
        if step % 4 == 0:
            plant("checkpoint_save", 0.2)
            ledger.mark(step)
    attempt.beat()
    if len(sys.argv) > 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _attempt(root: Path, *arguments: Any, submitted: float, placed: float | None = None) -> int:
    told = {"TELECINE_SUBMITTED": str(submitted)} | ({"TELECINE_PLACED": str(placed)} if placed else {})
    command = [sys.executable, "-P", "-c", PROGRAM, str(root), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | told, check=False).returncode


def _planted(root: Path, attempts_made: list[str], kept: int) -> dict[str, float]:
    """Seconds that were slept for each cause; steps after ``kept`` are lost, except those of the last attempt."""
    lines = [json.loads(line) for line in (root / "planted.jsonl").read_text().splitlines()]
    last, sums = lines[-1][0], dict.fromkeys(("data_wait", "checkpoint_restore", "checkpoint_save"), 0.0)
    assert {line[0] for line in lines} == set(attempts_made) and len(attempts_made) == 3
    for attempt, cause, step, seconds in lines:
        is_lost = cause == "productive" and attempt != last and step > kept
        sums["lost_work" if is_lost else cause] = sums.get("lost_work" if is_lost else cause, 0.0) + seconds
    assert sums["lost_work"] > 0.4 and sums["productive"] > 0.8 and sums["checkpoint_restore"] > 0.8
    return sums


def test_planted_delays_of_attempts_that_were_killed_land_in_their_causes(tmp_path: Path) -> None:
    asked = time.time() - 3.0
    assert _attempt(tmp_path, 0, 6, "die", submitted=asked, placed=asked + 2.0) == -signal.SIGKILL
    time.sleep(1.0)
    assert _attempt(tmp_path, 4, 7, "die", submitted=time.time()) == -signal.SIGKILL
    assert _attempt(tmp_path, 4, 9, submitted=time.time()) == 0
    states = attempts.states(Store(f"file://{tmp_path}"), "work/toy.train/key")
    last = max(states, key=lambda state: state["started"])
    total = last["ledger"]["total"]
    assert last["beat"] - asked == pytest.approx(sum(total.values()), abs=0.1)
    planted = _planted(tmp_path, [state["attempt"] for state in states], kept=4)
    assert {cause: total[cause] for cause in planted} == pytest.approx(planted, rel=0.1)
    starts = [state["started"] for state in sorted(states, key=lambda state: state["started"])]
    assert total["image"] == pytest.approx(starts[0] - asked - 2.0, rel=0.1)
    assert 2.9 < total["queue"] < 3.0 + 2.0, "2 s until it was placed, 1 s between attempts, and two processes' starts"
    assert total["unattributed"] / sum(total.values()) <= 0.02
    assert last["ledger"]["step"] == 9
