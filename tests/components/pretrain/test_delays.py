"""The ledger of a real training: each planted delay lands in its own cause, and hardly a second has none."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.launch import PLACED, SUBMITTED
from telecine.storage import Store
from telecine.work import attempts

SCRIPT = Path(__file__).with_name("shared_delays.py")
WAIT_S, DEAD_S = 1.5, 1.5
CHECKPOINT, KILLED_AT, NUM_STEPS = 2, 4, 6
OWN = {
    "reading an input": "init",
    "opening a shard": "data_wait",
    "finding a checkpoint": "checkpoint_restore",
    "saving": "checkpoint_save",
    "evaluating": "evaluation",
    "stepping": "productive",
    "compiling": "compile",
}
"""Cause of each part that was slow."""
MAX_UNATTRIBUTED_RATIO = 0.02


@dataclasses.dataclass(frozen=True)
class Delayed:
    """A training that was killed and called again.

    Attributes:
        delays: those planted: attempt, part, step, how long it slept, and what the ledger grew by meanwhile.
        states: last words of both attempts.
        asked, placed, called: when they were, on the test's own clock; ``called`` for each attempt.
    """

    delays: list[tuple[str, str, int, float, dict[str, float]]]
    states: list[dict[str, Any]]
    asked: float
    placed: float
    called: list[float]

    @property
    def total(self) -> dict[str, float]:
        found: dict[str, float] = self.states[-1]["ledger"]["total"]
        return found


@pytest.fixture(scope="module")
def delayed(
    tmp_path_factory: pytest.TempPathFactory, empty_tracker: Path, make_dataset: Callable[..., Path]
) -> Delayed:
    home = tmp_path_factory.mktemp("delayed")
    here = settings.from_environment({"TELECINE_HOME": str(home)})
    (home / "mlflow").mkdir()
    shutil.copy(empty_tracker, home / "mlflow" / "mlflow.db")
    inputs = {
        "dataset_uri": str(make_dataset(here)),
        "num_steps": NUM_STEPS,
        "checkpoint_every_steps": CHECKPOINT,
        "eval_every_steps": 100,
        "batch_size": 4,
        "depth": 1,
        "patch_px": 4,
        "eval_draws": 1,
        "num_threads": 1,
        "compile": shutil.which("g++") is not None,
    }
    told, called = home / "delays.jsonl", list[float]()

    def call(*kill_at: str, **environment: str) -> subprocess.Popen[bytes]:
        # Without the checks of every signature, which cannot be compiled.
        path = os.pathsep.join(filter(None, sys.path))
        where = os.environ | here.environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
        called.append(time.time())
        return subprocess.Popen([sys.executable, str(SCRIPT), json.dumps(inputs), str(told), *kill_at], env=where)

    asked = time.time()
    time.sleep(WAIT_S)
    placed = time.time()
    time.sleep(WAIT_S)
    first = call(str(KILLED_AT), **{SUBMITTED: repr(asked), PLACED: repr(placed)})
    assert first.wait(300) == -signal.SIGKILL
    time.sleep(DEAD_S)
    assert call().wait(300) == 0
    store = Store(here.store_uri)
    (key,) = [name for name in store.folders("work/pretrain.train") if name != "items"]
    states = sorted(attempts.states(store, f"work/pretrain.train/{key}"), key=lambda state: state["started"])
    return Delayed([tuple(json.loads(line)) for line in told.read_text().splitlines()], states, asked, placed, called)


@pytest.mark.parametrize("part", OWN)
def test_a_delay_lands_in_the_cause_of_the_part_that_was_slow(delayed: Delayed, part: str) -> None:
    if part == "compiling" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    planted = [(slept, grown) for _, name, _, slept, grown in delayed.delays if name == part]
    assert planted
    for slept, grown in planted:
        assert grown[OWN[part]] == pytest.approx(slept, rel=0.1)
        assert sum(grown.values()) == pytest.approx(slept, rel=0.1)


def test_steps_after_the_checkpoint_of_a_killed_attempt_are_lost_work(delayed: Delayed) -> None:
    first = delayed.states[0]["attempt"]
    steps = {step: slept for attempt, part, step, slept, _ in delayed.delays if (attempt, part) == (first, "stepping")}
    assert sorted(steps) == list(range(1, KILLED_AT + 1))
    # The checkpoint of the step at which it was killed was not begun: told first, saved then.
    lost = sum(slept for step, slept in steps.items() if step > CHECKPOINT)
    assert delayed.total["lost_work"] == pytest.approx(lost, rel=0.1)
    kept = sum(slept for _, part, _, slept, _ in delayed.delays if part == "stepping") - lost
    assert delayed.total["productive"] == pytest.approx(kept, rel=0.1)


def test_waiting_before_and_between_attempts_is_queue_and_image(delayed: Delayed) -> None:
    fetched_s, waited_s = delayed.called[0] - delayed.placed, delayed.placed - delayed.asked
    dead_s = delayed.called[1] - delayed.states[0]["beat"]
    assert min(fetched_s, waited_s) >= WAIT_S and dead_s >= DEAD_S
    assert delayed.total["image"] == pytest.approx(fetched_s, rel=0.1)
    assert delayed.total["queue"] == pytest.approx(waited_s + dead_s, rel=0.1)


def test_all_of_a_training_that_was_killed_is_accounted_for(delayed: Delayed) -> None:
    whole = delayed.states[-1]["beat"] - delayed.asked
    assert sum(delayed.total.values()) == pytest.approx(whole, rel=0.01)
    assert delayed.total["unattributed"] <= MAX_UNATTRIBUTED_RATIO * whole


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_undisturbed_training_is_accounted_for(
    num_processes: int,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    tmp_path: Path,
) -> None:
    inputs = {"dataset_uri": str(make_dataset(deployment)), **tiny_training} | {
        "num_processes": num_processes,
        "num_steps": 120,
    }
    command = [sys.executable, "-m", "telecine.cli", "run", "pretrain.train", "--inputs", json.dumps(inputs)]
    environment = os.environ | deployment.environment() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = (deployment.home / "store/work/pretrain.train").glob("*/beats/*.json")
    state = json.loads(path.read_text())
    total, whole = state["ledger"]["total"], state["beat"] - state["started"]
    assert sum(total.values()) == pytest.approx(whole, rel=0.01)
    assert total["unattributed"] <= MAX_UNATTRIBUTED_RATIO * whole
    assert total["productive"] > 0 and total["init"] < whole
