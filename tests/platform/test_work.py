"""Work has an address: what makes two calls the same work, what makes them different, and who wins."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import settings, tracking
from telecine.storage import Store

Letters = Callable[..., dict[str, Any]]
COUNT = {
    "inputs": 'text_uri: Artifact = param(help="A text.")',
    "outputs": 'length: int = param(help="Bytes.")',
    "body": "return Outputs(length=len(ctx.fetch(inputs.text_uri).read_bytes()))",
}


def _commit(here: settings.Settings, document: dict[str, Any]) -> dict[str, Any]:
    path = f"work/{document['component']}/{document['key']}/commit.json"
    record: dict[str, Any] = Store(here.store_uri).read_json(path)
    return record


def test_equal_work_meets_at_one_commit(letters: Letters) -> None:
    first, second = letters(text="ab"), letters(text="ab", times=2)
    assert (first["decision"], second["decision"]) == ("ran", "reused")
    assert first["key"] == second["key"] and first["attempt"] == second["attempt"]
    assert first["outputs"] == second["outputs"]


def test_another_value_is_other_work_and_the_reason_names_it(letters: Letters) -> None:
    first, second = letters(times=2), letters(times=3)
    assert second["decision"] == "ran" and second["key"] != first["key"]
    assert second["reason"] == "times was 2, now 3"


def test_how_work_is_done_is_no_part_of_what_it_is(toys: Any, deployment: settings.Settings) -> None:
    toys.add(
        "text.count",
        inputs='text: str = param("ab", help="A text.")\nlanes: int = param(1, ge=1, keyed=False, help="How.")',
        outputs='length: int = param(help="Characters.")',
        body="return Outputs(length=len(inputs.text))",
    )
    first, second = toys.run("text.count", lanes=3), toys.run("text.count", lanes=2)
    assert (first["decision"], second["decision"]) == ("ran", "reused")
    record = _commit(deployment, second)
    assert record["address"]["inputs"] == {"text": "ab"}
    assert record["inputs"] == {"text": "ab", "lanes": 3}, "the commit says how it was done all the same"
    assert toys.run("text.count", text="abc", lanes=2)["decision"] == "ran"


def test_an_artifact_counts_by_its_bytes_not_by_its_place(toys: Any, tmp_path: Path) -> None:
    toys.add("text.count", **COUNT)
    here, there, other = (tmp_path / name for name in ("here.txt", "there.txt", "other.txt"))
    here.write_text("same")
    there.write_text("same")
    other.write_text("other")
    results = [toys.run("text.count", text_uri=str(path)) for path in (here, there, other)]
    assert [result["decision"] for result in results] == ["ran", "reused", "ran"]
    assert results[2]["reason"] == "the content of text_uri changed"


def test_one_edited_line_of_code_is_other_work(toys: Any, letters: Letters) -> None:
    letters()
    code = toys.package / "text" / "repeat" / "run.py"
    code.write_text(code.read_text() + "\n# a remark\n")
    again = letters()
    assert again["decision"] == "ran"
    assert again["reason"] == "code: toys.text.repeat.run changed"


def test_a_flipped_byte_in_a_committed_file_is_found_and_made_again(toys: Any, letters: Letters) -> None:
    first = letters(text="ab")
    path = Path(first["outputs"]["text_uri"].removeprefix("file://"))
    path.write_text("aX" + path.read_text()[2:])
    again = letters(text="ab")
    assert again["decision"] == "ran" and "changed since it was committed" in again["reason"]
    assert Path(again["outputs"]["text_uri"].removeprefix("file://")).read_text() == "abab"
    assert letters(text="ab")["decision"] == "reused"


def test_a_corrupt_artifact_is_refused_as_an_input(toys: Any, letters: Letters) -> None:
    toys.add("text.count", **COUNT)
    made = letters(text="ab")["outputs"]["text_uri"]
    path = Path(made.removeprefix("file://"))
    path.write_text("aXab")
    _, err = toys.call("run", "text.count", "--set", f"text_uri={made}", code=78)
    assert "text.count: text_uri is not what was committed" in err
    letters(text="ab")
    path.write_text("abab")
    assert toys.run("text.count", text_uri=made)["outputs"]["length"] == 4, "a replaced commit's URI stays resolvable"


def test_an_input_that_changes_while_it_is_read_is_not_committed(toys: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("old")
    body = "path = ctx.fetch(inputs.text_uri)\npath.write_text('new')\nreturn Outputs(length=3)"
    toys.add("text.count", **COUNT | {"body": body})
    _, err = toys.call("run", "text.count", "--set", f"text_uri={tmp_path / 'in.txt'}", code=75)
    assert "text.count: text_uri changed while it was read; call again" in err


def test_files_behind_links_count_and_a_loop_of_links_ends(toys: Any, tmp_path: Path) -> None:
    toys.add("text.count", **COUNT | {"body": "return Outputs(length=len(list(ctx.fetch(inputs.text_uri).iterdir())))"})
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "folder")
    decisions = [toys.run("text.count", text_uri=str(tmp_path / "folder"))["decision"] for _ in range(2)]
    (tmp_path / "real" / "more.txt").write_text("more")
    decisions.append(toys.run("text.count", text_uri=str(tmp_path / "folder"))["decision"])
    assert decisions == ["ran", "reused", "ran"]


def test_a_torn_commit_record_is_moved_aside_and_the_work_done_again(letters: Letters, toys: Any) -> None:
    made = letters()
    path = toys.here.home / "store" / "work" / "text.repeat" / made["key"] / "commit.json"
    path.write_text('{"attempt": ')
    assert letters()["decision"] == "ran"
    assert (path.parent / "broken" / "torn-commit.json").exists()


def test_force_redoes_work_and_replaces_its_commit(toys: Any, letters: Letters) -> None:
    first = letters()
    forced = toys.run("text.repeat", "--force")
    assert forced["decision"] == "ran" and forced["key"] == first["key"] and forced["attempt"] != first["attempt"]
    assert letters()["attempt"] == forced["attempt"]


def test_effects_are_done_anew_by_every_run_and_once_within_one(toys: Any) -> None:
    toys.add(
        "bell.ring",
        effects=True,
        inputs="",
        outputs='rings: int = param(help="Rings.")',
        body="""
count = Path(os.environ["TELECINE_HOME"]) / "rings"
count.write_text(count.read_text() + "x" if count.exists() else "x")
return Outputs(rings=len(count.read_text()))
""",
    )
    decisions = [toys.run("bell.ring", "--run", run)["decision"] for run in ("monday", "monday", "tuesday")]
    assert decisions == ["ran", "reused", "ran"]


@pytest.fixture
def slow(toys: Any) -> Any:
    """A component that works through items at a file's bidding, with one unusable item."""
    toys.add(
        "slow.walk",
        inputs="count: int = param(4, ge=1, help='Items.')\nextra: int = param(0, help='Only changes the address.')",
        outputs='walk_uri: Artifact = param(help="What was seen.")\nbad: int = param(help="Unusable items.")',
        body="""
def process(source, out_dir):
    with (Path(os.environ["TELECINE_HOME"]) / "processed").open("a") as log:
        log.write(source.name + "\\n")
    go = Path(os.environ["TELECINE_HOME"]) / "go"
    while source.name in os.environ.get("HOLD", "").split(",") and not go.exists():
        time.sleep(0.05)
    if source.name == "2":
        raise BadData("two is not walked")
    (out_dir / "seen.txt").write_text(source.name)
    return {"name": source.name}

sources = [Source(str(i), f"digest-{i}") for i in range(inputs.count)]
items = ctx.items(sources, process)
(ctx.dir / "walk.txt").write_text("".join(f"{item.path} {item.reason}\\n" for item in items))
return Outputs(walk_uri="walk.txt", bad=sum(item.reason is not None for item in items))
""",
    )
    return toys


def _processed(here: settings.Settings) -> list[str]:
    return (here.home / "processed").read_text().split()


def test_each_item_is_processed_once_ever_and_a_bad_one_is_a_row(slow: Any, deployment: settings.Settings) -> None:
    first = slow.run("slow.walk", count=3)
    assert first["outputs"]["bad"] == 1
    longer = slow.run("slow.walk", count=5)
    assert longer["decision"] == "ran" and longer["outputs"]["bad"] == 1
    assert _processed(deployment) == ["0", "1", "2", "3", "4"]


def test_a_corrupt_item_alone_is_made_again(slow: Any, deployment: settings.Settings) -> None:
    slow.run("slow.walk", count=3)
    seen = next((deployment.home / "store" / "work" / "slow.walk" / "items").glob("*/*/seen.txt"))
    broken = seen.read_text()
    seen.write_text("?")
    assert slow.run("slow.walk", count=3)["decision"] == "ran"
    assert _processed(deployment) == ["0", "1", "2", broken]


def test_a_killed_attempt_is_continued_at_the_same_address(slow: Any, deployment: settings.Settings) -> None:
    process = slow.start("run", "slow.walk", HOLD="1")
    _await(lambda: (deployment.home / "processed").exists() and "1" in _processed(deployment))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = slow.run("slow.walk")
    assert after["decision"] == "ran"
    assert _processed(deployment) == ["0", "1", "1", "2", "3"]


def test_sigterm_stops_between_items_with_exit_75(slow: Any, deployment: settings.Settings) -> None:
    process = slow.start("run", "slow.walk", HOLD="1")
    _await(lambda: (deployment.home / "processed").exists() and "1" in _processed(deployment))
    process.terminate()
    time.sleep(0.2)
    (deployment.home / "go").touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped after 2 of 4 items; the same call continues there" in err
    assert slow.run("slow.walk")["decision"] == "ran"
    assert _processed(deployment) == ["0", "1", "2", "3"]


def test_two_racing_attempts_make_one_commit_and_one_mlflow_child(slow: Any, deployment: settings.Settings) -> None:
    racers = [slow.start("run", "slow.walk", "--run", "race", HOLD="0") for _ in range(2)]
    _await(lambda: (deployment.home / "processed").exists() and _processed(deployment) == ["0", "0"])
    (deployment.home / "go").touch()
    outputs = [racer.communicate(timeout=90) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], outputs
    documents = [json.loads(out) for out, _ in outputs]
    assert sorted(document["decision"] for document in documents) == ["lost", "ran"]
    assert documents[0]["attempt"] == documents[1]["attempt"] and documents[0]["outputs"] == documents[1]["outputs"]
    client = tracking.connect(deployment)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments)
    assert len(found) == 2, "one parent, one child"
    children = [each for each in found if "mlflow.parentRunId" in each.data.tags]
    assert [child.info.status for child in children] == ["FINISHED"]
    attempts = deployment.home / "store" / "work" / "slow.walk" / documents[0]["key"] / "attempts"
    assert os.listdir(attempts) == [documents[0]["attempt"]]


def test_the_commit_says_what_was_made_from_what_by_whom(letters: Letters, deployment: settings.Settings) -> None:
    record = _commit(deployment, letters(text="ab"))
    assert record["inputs"] == {"text": "ab", "times": 2}
    assert record["outputs"]["length"] == 4
    assert next(iter(record["files"].values()))["size"] == 4
    assert record["address"]["modules"].keys() == {"toys.text.repeat.run", "toys.text.repeat.spec"}
    assert record["provenance"]["packages"]["telecine"]


def _await(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
