"""The DAG flywheel in a real Airflow: refused early when it is wrong, run to its end, reused the second time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine import settings, tracking
from telecine.storage import Store
from telecine.work import runs

REPOSITORY = Path(__file__).parents[2]
TINY = {
    "render_num_films": 3,
    "render_num_frames": 48,
    "train_num_steps": 6,
    "train_batch_size": 4,
    "train_depth": 1,
    "train_checkpoint_every_steps": 3,
    "train_eval_every_steps": 3,
    "sample_num_steps": 2,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}


class Airflow:
    """An Airflow of its own: SQLite, this checkout's DAGs, no example."""

    def __init__(self, here: settings.Settings, dags: Path) -> None:
        self.here = here
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = (
            os.environ
            | here.environment()
            | {
                "PATH": path,
                "AIRFLOW_HOME": str(here.home / "airflow"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            }
        )

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one ``airflow`` command."""
        return subprocess.run(
            ["airflow", *arguments], env=self.environment | environment, capture_output=True, text=True, timeout=300
        )

    def test(self, conf: dict[str, Any], run: str) -> subprocess.CompletedProcess[str]:
        """Run the flywheel to its end in one process."""
        return self.call("dags", "test", "flywheel", "--conf", json.dumps(conf), TELECINE_RUN=run)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("airflow"))})
    tracking.connect(here)
    made = Airflow(here, REPOSITORY / "dags")
    assert made.call("db", "migrate").returncode == 0
    assert made.call("dags", "reserialize").returncode == 0
    return made


def test_the_flywheel_runs_to_its_end_and_the_second_time_reuses_all_but_the_effects(airflow: Airflow) -> None:
    first = airflow.test(TINY, "first")
    assert first.returncode == 0, first.stdout[-5000:] + first.stderr[-5000:]
    assert _decisions(airflow, "first") == {
        "backlot.render": "ran",
        "curate.split": "ran",
        "curate.filter": "ran",
        "curate.encode": "ran",
        "pretrain.train": "ran",
        "evaluate.sample": "ran",
        "deploy.register": "ran",
        "deploy.report": "ran",
    }
    _check_mlflow(airflow, "first")
    pointer = next(pointer for pointer in _pointers(airflow, "first") if pointer.task == "pretrain.train")
    from_a_shell = _shell(airflow, "pretrain.train", pointer.inputs)
    assert (from_a_shell["decision"], from_a_shell["attempt"]) == ("reused", pointer.attempt)
    assert from_a_shell["mlflow_run_id"] == pointer.mlflow_run_id

    second = airflow.test(TINY, "second")
    assert second.returncode == 0, second.stdout[-5000:]
    again = _decisions(airflow, "second")
    assert {task for task, decision in again.items() if decision == "ran"} == {"deploy.register", "deploy.report"}
    assert _version(airflow, "second") == _version(airflow, "first"), "the same weights are the same version"

    changed = airflow.test(TINY | {"sample_seeds": [7]}, "third")
    assert changed.returncode == 0, changed.stdout[-5000:]
    redone = {task for task, decision in _decisions(airflow, "third").items() if decision == "ran"}
    assert redone == {"evaluate.sample", "deploy.register", "deploy.report"}
    reasons = {pointer.task: pointer.reason for pointer in _pointers(airflow, "third")}
    assert reasons["evaluate.sample"] == "seeds was [0], now [7]"


def test_a_folder_of_one_s_own_is_used_and_nothing_is_rendered(airflow: Airflow, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    done = airflow.test(TINY | {"videos_uri": str(tmp_path)}, "own")
    assert done.returncode != 0
    pointers = {pointer.task: pointer for pointer in _pointers(airflow, "own")}
    assert pointers["backlot.render"].decision == "skipped"
    assert pointers["curate.split"].decision == "ran"
    assert pointers["curate.filter"].decision == "failed" and "InputError" in (pointers["curate.filter"].error or "")


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ({"train_num_steps": 0}, "0 is less than the minimum of 1"),
        ({"train_depth": "deep"}, "is not of type 'integer'"),
    ],
)
def test_airflow_refuses_a_bad_value_before_a_run_exists(
    airflow: Airflow, conf: dict[str, Any], complaint: str
) -> None:
    refused = airflow.call("dags", "trigger", "flywheel", "--conf", json.dumps(conf))
    assert refused.returncode != 0
    assert complaint in refused.stdout + refused.stderr


def test_a_misspelt_input_fails_when_the_dag_is_parsed(tmp_path: Path) -> None:
    source = (REPOSITORY / "dags" / "flywheel.py").read_text()
    wrong = tmp_path / "flywheel.py"
    wrong.write_text(source.replace('inputs={"clips_uri": split', 'inputs={"clip_uri": split'))
    done = subprocess.run([sys.executable, str(wrong)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "task curate.filter: there is no 'clip_uri'; did you mean 'clips_uri'?" in done.stderr


def _shell(airflow: Airflow, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", name, "--inputs", json.dumps(inputs)]
    done = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _pointers(airflow: Airflow, run: str) -> list[runs.Pointer]:
    return runs.pointers(Store(airflow.here.store_uri), run)


def _decisions(airflow: Airflow, run: str) -> dict[str, str]:
    return {pointer.task: pointer.decision for pointer in _pointers(airflow, run)}


def _version(airflow: Airflow, run: str) -> str:
    outputs = {pointer.task: pointer.outputs for pointer in _pointers(airflow, run)}["deploy.register"]
    assert outputs is not None
    return str(outputs["model_version"])


def _check_mlflow(airflow: Airflow, run: str) -> None:
    """One finished parent, one finished child a component, each with what a researcher looks for."""
    client = tracking.connect(airflow.here)
    experiment = client.get_experiment_by_name("flywheel")
    found = client.search_runs([experiment.experiment_id])
    parents = [r for r in found if "mlflow.parentRunId" not in r.data.tags]
    assert [p.data.tags["platform.run_id"] for p in parents] == [run]
    children = {r.data.tags["platform.component"]: r for r in found if r.data.tags.get("mlflow.parentRunId")}
    assert len(children) == len(found) - 1 == 8
    assert {r.info.status for r in found} == {"FINISHED"}
    train = children["pretrain.train"]
    assert train.data.params["num_steps"] == "6"
    assert train.data.tags["platform.airflow_run_id"].startswith("manual__") and train.data.tags["dataset.digest"]
    assert [m.step for m in client.get_metric_history(train.info.run_id, "train/loss")] == list(range(1, 7))
    assert train.inputs.dataset_inputs, "lineage of the data"
    films = [f.path for f in client.list_artifacts(children["evaluate.sample"].info.run_id, "samples")]
    assert any(path.endswith(".mp4") for path in films) and any(path.endswith(".png") for path in films)
    version = client.get_model_version_by_alias("telecine-flywheel", "candidate")
    assert version.run_id == train.info.run_id
