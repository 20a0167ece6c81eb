"""What one DAG hands to the next: asset events with the outputs of the task that made them, pools, what is kept."""

import dataclasses
import json
import re
import runpy
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telecine import component
from telecine.assets import CANDIDATE, CHECKPOINT, DATASET, FromAsset, Newest, Triggering
from telecine.component import POOLS
from telecine.errors import InputError
from telecine.execution import Call, execute
from telecine.operators import CollectGarbage, ComponentOperator, check_conf
from telecine.work.digests import Digests

REPOSITORY = Path(__file__).parents[2]
DAY = "2026-11-19"
NIGHT = "2026-11-20"
"""The run of a night takes the day that ended."""
TINY = {
    "train_num_steps": 2,
    "train_batch_size": 2,
    "train_depth": 1,
    "train_eval_draws": 1,
    "sample_num_steps": 1,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}


@pytest.fixture(scope="module")
def days(airflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage in one folder a day; the other day's is broken."""
    render = component.find("backlot.render")
    inputs = render.parse({"num_films": 2, "num_frames": 48, "seed": 5})
    call = Call(component=render, inputs=inputs, run="films", task=render.name, settings=airflow.here)
    folder = tmp_path_factory.mktemp("footage")
    shutil.copytree(execute(call).outputs["videos_uri"].removeprefix("file://"), folder / DAY)
    (folder / NIGHT).mkdir()
    (folder / NIGHT / "broken.mp4").write_text("not a video")
    return folder


def rows(airflow: Any, query: str) -> list[Any]:
    """What Airflow's database holds."""
    with sqlite3.connect(airflow.here.home / "airflow" / "airflow.db") as database:
        return database.execute(query).fetchall()


def events(airflow: Any) -> dict[str, dict[str, Any]]:
    """What the newest event of each asset carries."""
    query = "select asset.name, event.extra from asset_event event join asset on asset.id = event.asset_id"
    return {name: json.loads(extra) for name, extra in rows(airflow, f"{query} order by event.id")}


def test_a_day_s_footage_becomes_a_dataset_and_the_dataset_a_candidate(airflow: Any, days: Path) -> None:
    part = {"videos_uri": str(days), "prefix": "{day}"}
    curated = airflow.test("curate_videos", "curated", part, NIGHT)
    assert curated.returncode == 0, curated.stdout[-5000:] + curated.stderr[-5000:]
    met = airflow.pointers("curated")
    assert {task: pointer.decision for task, pointer in met.items()} == {
        **{f"curate.{verb}": "ran" for verb in ("split", "filter", "dedup", "balance", "cut", "encode", "report")},
        "caption.write": "ran",
    }
    assert met["curate.split"].inputs["videos_uri"] == str(days / DAY)
    assert (met["curate.split"].outputs["num_files"], met["curate.split"].outputs["num_bad_files"]) == (2, 0)
    dataset = met["curate.encode"].outputs
    assert events(airflow) == {"curated_dataset": dataset}

    trained = airflow.test("pretrain_model", "trained", TINY | {"train_recipe": "diffmoe"})
    assert trained.returncode == 0, trained.stdout[-5000:] + trained.stderr[-5000:]
    met = airflow.pointers("trained")
    learned = met["pretrain.train"].inputs
    assert (learned["num_experts"], learned["num_steps"]) == (16, TINY["train_num_steps"]), (
        "the conf wins over a recipe"
    )
    assert met["pretrain.train"].inputs["dataset_uri"] == dataset["dataset_uri"]
    assert met["deploy.register"].inputs["dataset_uri"] == "", "what the training read, whatever is newest by then"
    registered = json.loads(_local(met["deploy.register"].outputs["registration_uri"]).read_text())
    assert registered["dataset_digest"] == Digests(airflow.here.home).tree(_local(dataset["dataset_uri"]))
    told = events(airflow)
    assert told["checkpoint"]["model_uri"] == met["pretrain.train"].outputs["model_uri"]
    assert (told["candidate"]["model_name"], told["candidate"]["model_version"]) == ("telecine-flywheel", "1")
    assert told["curated_dataset"] == dataset

    cleared = airflow.test("collect_garbage", "cleared", {"dry_run": True, "keep_days": 0})
    assert cleared.returncode == 0, cleared.stdout[-5000:] + cleared.stderr[-5000:]
    _check_garbage(airflow, cleared.stdout)


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _check_garbage(airflow: Any, log: str) -> None:
    """What the registered version was made from stays; nothing needs the films that were copied away."""
    named = re.findall(r"would remove work/([\w.]+)/(\w+)(\S*) \(", log)
    assert {component + ("/items" if key == "items" else below) for component, key, below in named} == {
        "backlot.render",
        "curate.cut",
        "curate.cut/items",
        "curate.report",
        "evaluate.sample",
        "pretrain.train/checkpoints",
    }
    work = airflow.here.home / "store" / "work"
    assert [found for found in named if not (work / "/".join(found[:2])).is_dir()] == [], "a dry run removes nothing"


# What an input from an asset is


OLDER = {"dataset_uri": "older"}


class Xcom:
    """Where a task leaves what others may ask for."""

    def __init__(self) -> None:
        self.left: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.left[key] = value


def context(
    params: dict[str, Any], *, triggering: dict[str, Any] | None = None, inlet: dict[str, Any] | None = None
) -> Any:
    """What Airflow gives a task that was started by an event, or finds events of earlier runs."""
    found = {
        name: {DATASET: [SimpleNamespace(extra=extra, timestamp=2), SimpleNamespace(extra=OLDER, timestamp=1)]}
        if extra is not None
        else {}
        for name, extra in (("triggering_asset_events", triggering), ("inlet_events", inlet))
    }
    return {"params": params, "ti": Xcom(), **found}


@pytest.mark.parametrize(
    ("param", "triggering", "inlet", "value"),
    [
        ("given", {"dataset_uri": "event"}, {"dataset_uri": "inlet"}, "given"),
        ("", {"dataset_uri": "event"}, {"dataset_uri": "inlet"}, "event"),
        ("", None, {"dataset_uri": "inlet"}, "inlet"),
        ("", {}, {"dataset_uri": "inlet"}, "inlet"),
    ],
)
def test_the_newest_is_the_param_else_the_event_that_started_the_run_else_the_last_there_is(
    param: str, triggering: dict[str, Any] | None, inlet: dict[str, Any] | None, value: str
) -> None:
    newest = Newest(DATASET, output="dataset_uri", param="dataset_uri")
    assert newest.resolve(context({"dataset_uri": param}, triggering=triggering, inlet=inlet)) == value


@pytest.mark.parametrize("inlet", [None, {}, {"another_output": "x"}])
def test_without_any_event_a_person_is_told_what_to_do(inlet: dict[str, Any] | None) -> None:
    newest = Newest(DATASET, output="dataset_uri", param="dataset_uri")
    with pytest.raises(InputError) as refused:
        newest.resolve(context({"dataset_uri": ""}, inlet=inlet))
    assert str(refused.value) == (
        "there is no curated_dataset yet: run the DAG that makes one, or set the Param 'dataset_uri'"
    )


def test_an_input_from_the_triggering_event_ignores_older_ones() -> None:
    version = Triggering(DATASET, output="dataset_uri", param="dataset_uri")
    started = context({"dataset_uri": "param"}, triggering={"dataset_uri": "event"}, inlet={"dataset_uri": "inlet"})
    assert version.resolve(started) == "event"
    by_hand = context({"dataset_uri": "param"}, inlet={"dataset_uri": "inlet"})
    assert version.resolve(by_hand) == "param"


def test_events_that_a_run_passes_over_are_named_in_its_log_and_left_for_who_asks(caplog: Any) -> None:
    version = Triggering(DATASET, output="dataset_uri", param="dataset_uri")
    started = context({"dataset_uri": ""}, triggering={"dataset_uri": "event"})
    assert version.resolve(started) == "event"
    assert started["ti"].left == {"superseded_dataset_uri": ["older"]}
    assert "event=superseded asset=curated_dataset dataset_uri=['older'] by=event" in caplog.text


# The DAGs together


def test_every_dag_takes_its_own_defaults() -> None:
    for dag in dags():
        check_conf(dag, {})


def dags() -> Iterator[Any]:
    for path in sorted((REPOSITORY / "dags").glob("*.py")):
        yield runpy.run_path(str(path))["dag"]


def test_what_a_dag_waits_for_some_dag_makes_with_the_output_that_is_asked_for() -> None:
    every = list(dags())
    tasks = [task for dag in every for task in dag.tasks if isinstance(task, ComponentOperator)]
    made = {
        asset.name: {field.name for field in dataclasses.fields(task.component.outputs)}
        for task in tasks
        for asset in task.outlets
    }
    asked = [value for task in tasks for value in task.inputs.values() if isinstance(value, FromAsset)]
    assert {value.asset.name for value in asked} == {DATASET.name, CANDIDATE.name}
    assert [value for value in asked if value.output not in made[value.asset.name]] == []
    waited_for = {asset.name for dag in every if isinstance(dag.schedule, list) for asset in dag.schedule}
    assert waited_for == {DATASET.name, CHECKPOINT.name, CANDIDATE.name}
    assert waited_for - set(made) == set()


def test_all_work_is_bounded_by_the_pools_that_the_deployment_makes(airflow: Any) -> None:
    tasks = [task for dag in dags() for task in dag.tasks if isinstance(task, ComponentOperator | CollectGarbage)]
    assert {task.pool for task in tasks} == set(POOLS)
    heavy = {task.pool for task in tasks if isinstance(task, ComponentOperator) and task.component.resources.cpus > 1}
    assert heavy == {"telecine_heavy"}
    slots = dict(rows(airflow, "select pool, slots from slot_pool where pool like 'telecine%'"))
    assert set(slots) == set(POOLS) and min(slots.values()) >= 1
