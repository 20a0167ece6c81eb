"""When an attempt was asked for and began, which attempts it goes on from, and what its heartbeat says of its time."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.errors import InputError
from telecine.runners import container, process
from telecine.storage import Store
from telecine.work import attempts, beginning

WORK = f"work/toy.work/{'0' * 32}"
_SPEC = util.spec_from_file_location("contained_for_attempts", Path(__file__).with_name("runners") / "contained.py")
assert _SPEC is not None and _SPEC.loader is not None
toy = util.module_from_spec(_SPEC)
sys.modules["contained_for_attempts"] = toy  # test folders are no packages
_SPEC.loader.exec_module(toy)
here = toy.here


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/store")


def made(store: Store, started: float, *, ended: bool = True, forced: bool = False, **values: Any) -> str:
    """An attempt that beat once; returns its id."""
    attempt = attempts.Attempt(
        store,
        WORK,
        run="r",
        task="t",
        superseded=lambda: False,
        beginning=attempts.Beginning(started=started),
        forced=forced,
    )
    attempt.beat(**({"ended": started + 1.0} if ended else {}) | values)
    return attempt.id


def earlier(store: Store, attempt: str) -> list[str]:
    return [state["attempt"] for state in attempts.earlier(store, WORK, attempt)]


def test_an_attempt_goes_on_from_those_before_it_in_their_order(store: Store) -> None:
    third, first, second = (made(store, started) for started in (30.0, 10.0, 20.0))
    mine = made(store, 40.0, ended=False)
    assert earlier(store, mine) == [first, second, third]


def test_what_was_done_before_work_was_redone_by_force_is_no_part_of_it(store: Store) -> None:
    made(store, 10.0)
    forced = made(store, 20.0, forced=True, ended=False)
    assert earlier(store, forced) == []
    after = made(store, 30.0)
    assert earlier(store, made(store, 40.0, ended=False)) == [after], "the forced one lives: it is this process"


def test_a_rival_that_lives_here_is_left_out_and_one_that_may_be_dead_elsewhere_is_not(store: Store) -> None:
    made(store, 10.0, ended=False)
    elsewhere = made(store, 20.0, ended=False, host="elsewhere", boot="another")
    assert earlier(store, made(store, 30.0, ended=False)) == [elsewhere]


def test_a_state_of_an_older_release_says_nothing_of_times(store: Store) -> None:
    store.write_json(f"{WORK}/beats/old.json", {"attempt": "old", "host": "h", "pid": 1, "ended": 1.0, "beat": 1.0})
    assert earlier(store, made(store, 30.0, ended=False)) == []


def test_every_heartbeat_writes_the_ledger_as_it_is_then(store: Store) -> None:
    attempt = attempts.Attempt(store, WORK, run="r", task="t", superseded=lambda: False)
    spent = {"init": 1.0}
    attempt.beat()
    assert "ledger" not in attempts.state(store, WORK, attempt.id)
    attempt.ledger = lambda: {"total": dict(spent)}
    with attempt:
        spent["init"] = 2.0
    assert attempts.state(store, WORK, attempt.id)["ledger"] == {"total": {"init": 2.0}}, "the last one, at its end"


PROGRAM = """
import json, os, time
began = time.time()
import dataclasses
from telecine.storage import Store
from telecine.work import beginning
store = Store("file://" + os.environ["PLACE"])
first, second = (beginning.of_attempt(store, "work/x/y", run="r", task="t") for _ in range(2))
print(json.dumps([began, dataclasses.asdict(first), dataclasses.asdict(second), time.time()]))
"""


def begun(tmp_path: Path, **variables: str) -> Any:
    """What a process says of its beginning, and when this one started it."""
    before = time.time()
    command = [sys.executable, "-P", "-c", PROGRAM]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TELECINE_")}
    environment = kept | {"PLACE": str(tmp_path)} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return before, *json.loads(done.stdout)


def test_a_process_began_before_its_first_import_and_its_second_attempt_when_it_is_asked(tmp_path: Path) -> None:
    before, began, first, second, after = begun(tmp_path, TELECINE_SUBMITTED="12.5", TELECINE_PLACED="13")
    assert before - 0.05 <= first["started"] <= began + 0.05
    assert (first["submitted"], first["placed"]) == (12.5, 13.0)
    assert began < second["started"] <= after
    assert (second["submitted"], second["placed"]) == (None, None)


@pytest.mark.parametrize("text", ["yesterday", "nan", "inf"])
def test_a_variable_that_is_no_time_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InputError, match=f"TELECINE_SUBMITTED must be seconds since the epoch, got '{text}'; unset it"):
        beginning.of_process(store, WORK, run="r", task="t", environment={"TELECINE_SUBMITTED": text})


def test_who_is_started_by_nobody_we_know_was_submitted_at_no_known_time(store: Store) -> None:
    found = beginning.of_process(store, WORK, run="r", task="t", environment={})
    assert (found.submitted, found.placed) == (None, None)
    assert beginning.of_process(store, WORK, run="r", task="t", environment={"KUBERNETES_SERVICE_HOST": "h"}) == (
        dataclasses.replace(found, started=pytest.approx(found.started, abs=0.05))
    ), "a pod that no runner of ours made"


def test_a_child_is_told_when_it_was_asked_for(here: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELECINE_SUBMITTED", "1.0")
    before = time.time()
    child = process.start(toy.launch_of(here))
    deadline, told = time.monotonic() + 10, [""]
    while told == [""] and time.monotonic() < deadline:  # the kernel shows it a moment after the program was replaced
        told = Path(f"/proc/{child.pid}/environ").read_text().split("\0")
    child.kill()
    child.communicate()
    (submitted,) = [float(each.partition("=")[2]) for each in told if each.startswith("TELECINE_SUBMITTED=")]
    assert before <= submitted <= time.time()


def test_a_container_is_told_that_its_place_was_found_when_it_was_asked_for(
    here: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    info = '{"host": {"cgroupControllers": [], "security": {"rootless": true}}}'
    run = 'echo "$TELECINE_SUBMITTED $TELECINE_PLACED"; echo "$@"'
    engine.write_text(
        f"#!/bin/sh\ncase \"$1\" in info) echo '{info}';; image) echo id;; run) {run};; *) exit 1;; esac\n"
    )
    engine.chmod(0o755)
    monkeypatch.setenv("TELECINE_CONTAINER_ENGINE", str(engine))
    before = time.time()
    child = container.start(toy.launch_of(here))
    assert child.stdout is not None
    times, words = child.stdout.read().splitlines()
    submitted, placed = map(float, times.split())
    assert before <= submitted == placed <= time.time()
    assert {"--env=TELECINE_SUBMITTED", "--env=TELECINE_PLACED"} <= set(words.split())
