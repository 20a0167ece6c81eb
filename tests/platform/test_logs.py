"""``telecine logs``: what an attempt said is kept, whatever becomes of it, and no secret is."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.storage import Store
from telecine.work import logbook, logs

HIDDEN = "hunter2-hunter2"

TALK = """
import logging, warnings
logging.getLogger("toys").info("event=hello password=%s", os.environ.get("TOY_PASSWORD"))
warnings.warn("this is odd")
ctx.progress(1, 2, loss=0.5)
ctx.progress(2, 2, loss=0.25)
"""


def _lines(toys: Any, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(toys.call("logs", *arguments, "--json")[0])
    return found


def test_a_log_holds_what_was_said_and_the_traceback_of_a_failure(toys: Any) -> None:
    toys.add("toy.talk", inputs="", outputs="", body=TALK + "raise ZeroDivisionError('a defect')")
    toys.call("run", "toy.talk", "--run", "r", code=1)
    texts = [line["text"] for line in _lines(toys, "r")]
    assert texts[0].startswith("event=attempt run=r task=toy.talk attempt=")
    assert [text for text in texts if text.startswith("event=progress")] == [
        "event=progress done=1/2 percent=50 loss=0.5",
        "event=progress done=2/2 percent=100 loss=0.25",
    ]
    assert any("this is odd" in text for text in texts)
    assert "ZeroDivisionError: a defect" in texts and texts[-1] == "event=attempt_failed error=ZeroDivisionError"


def test_attempts_and_tasks_are_told_apart_in_the_order_of_time(toys: Any) -> None:
    body = TALK + "marker = Path(os.environ['TELECINE_HOME']) / 'second'\nif not marker.exists():\n    marker.touch()\n"
    toys.add("toy.talk", inputs="", outputs="", body=body + "    raise RetryLater('once more')\nreturn Outputs()")
    toys.add("toy.hush", inputs="", outputs="", body="return Outputs()")
    toys.call("run", "toy.talk", "--run", "r", code=75)
    toys.run("toy.talk", "--run", "r")
    toys.run("toy.hush", "--run", "r")
    lines = _lines(toys, "r")
    assert list(dict.fromkeys(line["label"] for line in lines)) == ["toy.talk#1", "toy.talk#2", "toy.hush"]
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {line["task"] for line in _lines(toys, "r", "toy.hush")} == {"toy.hush"}
    _, err = toys.call("logs", "r", "toy.sing", code=78)
    assert err == "telecine: run r has no task 'toy.sing'; its tasks are toy.talk, toy.hush\n"


def test_a_reused_task_says_who_made_its_work(letters: Callable[..., Any], toys: Any) -> None:
    toys.run("text.repeat", "--run", "first")
    toys.run("text.repeat", "--run", "second")
    (line,) = _lines(toys, "second")
    assert line["text"].startswith("event=reused same inputs and code as in run first")


def test_no_secret_reaches_the_log_the_terminal_or_the_pointer(toys: Any, deployment: settings.Settings) -> None:
    body = TALK + "raise InputError('cannot log in at http://me:' + os.environ['TOY_PASSWORD'] + '@host/')"
    toys.add("toy.talk", inputs="", outputs="", body=body)
    process = toys.start("run", "toy.talk", "--run", "r", TOY_PASSWORD=HIDDEN)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 78 and "event=hello password=[TOY_PASSWORD]" in err
    assert HIDDEN not in out + err
    kept = [file for file in deployment.home.rglob("*") if file.is_file()]
    assert any(file.suffix == ".log" for file in kept)
    assert [file for file in kept if HIDDEN.encode() in file.read_bytes()] == []


def test_the_traceback_of_a_defect_is_masked_on_the_terminal(toys: Any) -> None:
    toys.add("toy.talk", inputs="", outputs="", body="raise ZeroDivisionError(os.environ['TOY_PASSWORD'])")
    process = toys.start("run", "toy.talk", TOY_PASSWORD=HIDDEN)
    out, err = process.communicate(timeout=60)
    assert "ZeroDivisionError: [TOY_PASSWORD]" in err and HIDDEN not in out + err


def test_a_log_survives_kill_9_and_following_shows_each_line_once(toys: Any) -> None:
    toys.add("toy.talk", inputs="", outputs="", body=TALK + "time.sleep(60)\nreturn Outputs()")
    process = toys.start("run", "toy.talk", "--run", "r")
    _await(lambda: any("done=2/2" in line["text"] for line in _lines_if_any(toys)))
    follower = toys.start("logs", "r", "toy.talk", "--follow", "--json")
    process.kill()
    process.communicate()
    store = Store(toys.here.store_uri)
    followed = logs.of(store, "r")
    assert "event=progress done=2/2 percent=100 loss=0.25" in [line.text for line in followed]
    time.sleep(1.5)
    follower.terminate()
    out, _ = follower.communicate(timeout=30)
    assert [json.loads(line)["text"] for line in out.splitlines()] == [line.text for line in followed]


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    log = logbook.AttemptLog(store, "a.log")
    num_lines = logbook.HEAD_LINES + logbook.TAIL_LINES + 500
    for number in range(num_lines):
        log.say(f"line {number}")
    log.save()
    texts = [text for _, text in logs.parse(store.read("a.log").decode())]
    assert texts[0] == "line 0" and texts[-1] == f"line {num_lines - 1}"
    assert texts[logbook.HEAD_LINES] == "event=log_shortened num_lines=500"


def _lines_if_any(toys: Any) -> list[dict[str, Any]]:
    process = toys.start("logs", "r", "--json")
    out, _ = process.communicate(timeout=60)
    found: list[dict[str, Any]] = json.loads(out) if process.returncode == 0 else []
    return found


def _await(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize("torn", ["2026-11-22T10:00:00.0", "", "garbage without a time"])
def test_a_line_that_a_crash_cut_off_is_no_error(torn: str) -> None:
    whole = "2026-11-22T10:00:00.000Z event=hello\n"
    assert next(logs.parse(whole + torn))[1] == "event=hello"
