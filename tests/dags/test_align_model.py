"""The DAG align_model in a real Airflow: rounds of the loop, and the safe branch when nobody labels."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from telecine import tracking
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

ROUND = ("align.collect", "align.label", "align.tune", "evaluate.compare")
TINY = {
    "rounds": 2,
    "collect_num_prompts": 3,
    "collect_num_seeds": 2,
    "collect_num_steps": 1,
    "collect_max_pairs": 2,
    "tune_num_steps": 2,
    "tune_batch_size": 2,
    "compare_num_prompts": 8,
    "compare_num_seeds": 1,
    "compare_num_steps": 1,
}


@pytest.fixture(scope="module")
def base(airflow: Any) -> dict[str, Any]:
    """Params of a tiny run that begins with an untrained model."""
    return TINY | {"model_uri": str(_untrained_model(airflow.here.home / "model"))}


def _untrained_model(folder: Path) -> Path:
    config = VideoDiTConfig.from_depth(1, patch_size=(2, 4, 4))
    transformer = VideoDiT(**dataclasses.asdict(config))
    pipeline = TelecinePipeline(transformer=transformer, text_encoder=HashTextEncoder(text_dim=config.text_dim))
    pipeline.save_pretrained(folder, safe_serialization=True)  # type: ignore[no-untyped-call]
    video = {"num_frames": 2, "height_px": 8, "width_px": 8, "fps": 8.0}
    (folder / "trained_on.json").write_text(json.dumps(video))
    return folder


def test_rounds_follow_each_other_those_beyond_are_skipped_and_silence_tunes_nothing(
    airflow: Any, base: dict[str, Any]
) -> None:
    done = airflow.test("align_model", "oracle", base)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    met = airflow.pointers("oracle")
    assert {task: pointer.decision for task, pointer in met.items()} == {
        **{f"round_{number}.{name}": "ran" for number in (1, 2) for name in ROUND},
        "round_3.align.collect": "skipped",
        "deploy.register": "skipped",
    }
    assert met["round_3.align.collect"].reason == "params.rounds >= 3 does not hold"
    assert "why='2 of 2 rounds were tuned; round " in done.stdout
    assert "the base model stays'" in done.stdout
    tuned, compared = ([met[f"round_{n}.{name}"] for n in (1, 2)] for name in ROUND[2:])
    assert tuned[1].inputs["model_uri"] == tuned[0].outputs["model_uri"], "a round begins with the model of the last"
    for tune, compare in zip(tuned, compared, strict=True):
        assert compare.inputs["model_uri"] == tune.outputs["model_uri"]
        assert (compare.inputs["reference_uri"], compare.inputs["num_rounds"]) == (base["model_uri"], 2)
    _check_mlflow(airflow, [compare.outputs for compare in compared])

    silent = airflow.test("align_model", "silent", base | {"labeller": "human", "answer_timeout_s": 0})
    assert silent.returncode == 0, silent.stdout[-5000:] + silent.stderr[-5000:]
    assert airflow.decisions("silent") == {
        "round_1.align.collect": "reused",
        "round_1.ask": "skipped",
        "deploy.register": "skipped",
    }
    assert "why='answer_timeout_s is 0; the base model stays'" in silent.stdout


def _check_mlflow(airflow: Any, outputs: list[dict[str, Any]]) -> None:
    """The parent is finished and shows the rounds' figures as a series."""
    client = tracking.connect(airflow.here)
    found = client.search_runs([client.get_experiment_by_name("align_model").experiment_id])
    parent = next(r for r in found if r.data.tags["platform.run_id"] == "oracle" and not _is_child(r))
    assert parent.info.status == "FINISHED"
    for name in ("reward", "win_rate"):
        points = client.get_metric_history(parent.info.run_id, f"round/{name}")
        assert [point.step for point in points] == [1, 2]
        assert [point.value for point in points] == [pytest.approx(of_round[name]) for of_round in outputs]


def _is_child(run: Any) -> bool:
    return "mlflow.parentRunId" in run.data.tags


@pytest.mark.parametrize(("conf", "complaint"), [({"rounds": 4}, "4 is greater than"), ({"labeller": "cat"}, "cat")])
def test_values_that_cannot_work_are_refused_before_a_run_exists(
    airflow: Any, conf: dict[str, Any], complaint: str
) -> None:
    refused = airflow.call("dags", "trigger", "align_model", "--conf", json.dumps(conf))
    assert refused.returncode != 0
    assert complaint in refused.stdout + refused.stderr
