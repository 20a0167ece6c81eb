"""``telecine status``: what a task that neither ended well nor says that it runs is doing."""

import os
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from telecine import settings
from telecine.storage import Store
from telecine.work import attempts, runs, status

KEY = "0" * 32
WORK = f"work/toy.work/{KEY}"


@pytest.fixture
def store(deployment: settings.Settings) -> Store:
    return Store(deployment.store_uri)


def point(store: Store, **values: Any) -> None:
    told = {"task": "toy.work", "component": "toy.work", "key": KEY, "reason": "first time", "inputs": {}}
    runs.point(store, "r", runs.Pointer(**{**told, "decision": "running", **values}))


def beating(store: Store, *, age_s: float = 0.0, **values: Any) -> None:
    """A task whose attempt beat last ``age_s`` ago, 3 of 4 steps done."""
    attempt = attempts.Attempt(store, WORK, run="r", task="toy.work", superseded=lambda: False)
    attempt.progress = attempts.Progress(done=3, total=4, restored=3)
    attempt.beat(**values)
    file = store.local(attempt.state_path)
    assert file is not None
    os.utime(file, (time.time() - age_s,) * 2)
    point(store, attempt=attempt.id)


def accounted(store: Store, attempt: attempts.Attempt, **values: Any) -> None:
    """An attempt that keeps a ledger: a minute, two thirds of it productive."""
    total = {"productive": 40.0, "data_wait": 12.0, "init": 7.6, "queue": 0.4, "image": 0.0}
    document = {"total": total, "productive_ratio": 40 / 60, "cause": "data_wait", "cause_s": 3.2, "step": 3}
    attempt.ledger = lambda: document | values
    attempt.beat()
    point(store, attempt=attempt.id)


def told(store: Store) -> tuple[str, str]:
    """State and detail, which the report that a person reads holds, too."""
    report = status.of(store, "r")
    task = report["tasks"][0]
    assert f"{task['state']:9} {task['detail']}" in status.render(report)
    return task["state"], task["detail"]


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_task_whose_attempt_has_not_beaten_yet_is_starting(store: Store) -> None:
    point(store, attempt="not-there-yet")
    assert told(store) == ("starting", "")


def test_a_process_that_is_there_and_says_nothing_is_silent_not_dead(store: Store) -> None:
    beating(store, age_s=5)
    assert told(store)[0] == "running"
    beating(store, age_s=status.SILENT_S + 5)
    state, detail = told(store)
    assert state == "silent"
    assert re.fullmatch(rf"3/4 \(75%\); no heartbeat for 20 s from pid {os.getpid()} on \S+", detail), detail


def test_a_living_attempt_is_told_with_where_its_time_goes(store: Store) -> None:
    attempt = attempts.Attempt(store, WORK, run="r", task="toy.work", superseded=lambda: False)
    accounted(store, attempt)
    wanted = "no progress told yet; goodput 67% (data_wait 20%, init 13%); in data_wait for 3 s  heartbeat 0 s ago"
    assert told(store) == ("running", wanted)
    assert status.of(store, "r")["tasks"][0]["ledger"]["total"]["productive"] == 40.0
    accounted(store, attempt, total={"productive": 60.0, "init": 0.1}, productive_ratio=0.998, cause=None)
    assert told(store) == ("running", "no progress told yet; goodput 100%  heartbeat 0 s ago")
    accounted(store, attempt, total={"productive": 0.0}, productive_ratio=0.0, cause="init")
    assert "; goodput 0%; in init for 3 s" in told(store)[1]


@pytest.mark.parametrize(
    ("age_s", "how", "values"),
    [
        (3, "is gone", {"pid": ended_pid}),
        (attempts.LEASE_S + 5, "is gone", {"host": "elsewhere"}),
        (3, "ended without saying how", {"ended": time.time}),
    ],
)
def test_a_dead_attempt_is_told_with_what_it_had_done_and_what_to_do(
    store: Store, age_s: float, how: str, values: dict[str, Any]
) -> None:
    made = {name: value() if callable(value) else value for name, value in values.items()}
    beating(store, age_s=age_s, **made)
    state, detail = told(store)
    assert state == "died"
    assert f" {how}, last heartbeat {age_s:.0f} s ago; the same call goes on from its last checkpoint" in detail
    assert detail.startswith("3/4 (75%); pid ")


def test_an_attempt_on_another_machine_of_the_same_name_is_not_taken_for_dead(store: Store) -> None:
    beating(store, age_s=3, pid=ended_pid(), boot="that of another machine")
    assert told(store)[0] == "running"


def test_what_may_be_tried_again_waits_and_what_may_not_failed(store: Store) -> None:
    point(store, decision="failed", exit_code=75, error="the store does not answer", seconds=2.0)
    assert told(store) == (
        "waits",
        "after 2.0 s, goes on where it stopped when it is tried again: the store does not answer",
    )
    point(store, decision="failed", exit_code=78, error="times must be at least 1", seconds=2.0)
    assert told(store) == ("failed", "after 2.0 s, exit 78: times must be at least 1")
