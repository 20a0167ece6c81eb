"""The DAG flywheel in a real Airflow: refused early when it is wrong, run to its end, reused the second time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine import tracking

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


def test_the_flywheel_runs_to_its_end_and_the_second_time_reuses_all_but_the_effects(airflow: Any) -> None:
    first = airflow.test("flywheel", "first", TINY)
    assert first.returncode == 0, first.stdout[-5000:] + first.stderr[-5000:]
    assert airflow.decisions("first") == {
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
    pointer = airflow.pointers("first")["pretrain.train"]
    from_a_shell = _shell(airflow, "pretrain.train", pointer.inputs)
    assert (from_a_shell["decision"], from_a_shell["attempt"]) == ("reused", pointer.attempt)
    assert from_a_shell["mlflow_run_id"] == pointer.mlflow_run_id

    second = airflow.test("flywheel", "second", TINY)
    assert second.returncode == 0, second.stdout[-5000:]
    again = airflow.decisions("second")
    assert {task for task, decision in again.items() if decision == "ran"} == {"deploy.register", "deploy.report"}
    assert _version(airflow, "second") == _version(airflow, "first"), "the same weights are the same version"

    changed = airflow.test("flywheel", "third", TINY | {"sample_seeds": [7]})
    assert changed.returncode == 0, changed.stdout[-5000:]
    redone = {task for task, decision in airflow.decisions("third").items() if decision == "ran"}
    assert redone == {"evaluate.sample", "deploy.register", "deploy.report"}
    assert airflow.pointers("third")["evaluate.sample"].reason == "seeds was [0], now [7]"


def test_a_folder_of_one_s_own_is_used_and_nothing_is_rendered(airflow: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    done = airflow.test("flywheel", "own", TINY | {"videos_uri": str(tmp_path)})
    assert done.returncode != 0
    pointers = airflow.pointers("own")
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
def test_airflow_refuses_a_bad_value_before_a_run_exists(airflow: Any, conf: dict[str, Any], complaint: str) -> None:
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


def _shell(airflow: Any, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", name, "--inputs", json.dumps(inputs)]
    done = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _version(airflow: Any, run: str) -> str:
    outputs = airflow.pointers(run)["deploy.register"].outputs
    assert outputs is not None
    return str(outputs["model_version"])


def _check_mlflow(airflow: Any, run: str) -> None:
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
