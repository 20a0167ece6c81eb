"""pretrain.train, run for real on a tiny dataset: results, resume after kill -9, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from telecine import settings
from telecine.errors import InputError, RetryLater
from telecine_models.pipeline import TelecinePipeline


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def commit_of(uri: str) -> dict[str, Any]:
    folder = local(uri)
    while not (folder / "commit.json").is_file():
        folder = folder.parent
    document: dict[str, Any] = json.loads((folder / "commit.json").read_text())
    return document


def digests_of(uri: str) -> dict[str, str]:
    """Digest of every output artifact of the work that made ``uri``."""
    outputs = commit_of(uri)["outputs"]
    return {name: value["digest"] for name, value in outputs.items() if isinstance(value, dict)}


def test_training_beats_the_untrained_model_on_held_out_clips(trained: Any, tiny_training: dict[str, Any]) -> None:
    outputs = trained.outputs
    assert outputs.num_steps == tiny_training["num_steps"]
    assert outputs.eval_loss < outputs.eval_loss_untrained
    assert 0 < outputs.gain_over_untrained_low <= outputs.gain_over_untrained_high
    assert outputs.gain_over_mean_predictor_low <= outputs.gain_over_mean_predictor_high
    training = json.loads(local(outputs.training_uri).read_text())
    assert [step for step, _ in training["history"]["train/loss"]] == list(range(1, 25))
    assert [step for step, _ in training["history"]["eval/loss"]] == [8, 16, 24]
    assert training["held_out"]["num_clips"] == 2
    assert training["num_samples_seen"] == 24 * 4


def test_the_model_is_a_pipeline_folder_of_safetensors_that_samples(trained: Any) -> None:
    folder = local(trained.outputs.model_uri)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    pipeline = TelecinePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    assert sum(p.numel() for p in pipeline.transformer.parameters()) == trained.outputs.num_parameters
    film = pipeline("a red square moves right", num_frames=2, height_px=8, width_px=8, num_steps=2)
    assert film.shape == (1, 2, 8, 8, 3)


def test_nothing_committed_names_a_place_or_a_time(trained: Any) -> None:
    folder = local(trained.outputs.model_uri).parent
    for path in folder.rglob("*.json"):
        text = path.read_text()
        assert str(trained.deployment.home) not in text
        assert folder.name not in text


def test_the_curves_and_the_picture_are_in_mlflow(trained: Any) -> None:
    from telecine import tracking

    client = tracking.connect(trained.deployment)
    run_id = commit_of(trained.outputs.model_uri)["mlflow_run_id"]
    for name in ("train/loss", "train/grad_norm", "train/lr", "perf/step_time_s", "perf/samples_per_s"):
        assert [point.step for point in client.get_metric_history(run_id, name)] == list(range(1, 25))
    assert [point.step for point in client.get_metric_history(run_id, "eval/loss")] == [8, 16, 24]
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/loss.png"]
    used = client.get_run(run_id).inputs
    assert used is not None
    assert [entry.dataset.name for entry in used.dataset_inputs] == ["dataset"]


def test_a_second_call_is_reused_and_steps_nothing(trained: Any, tiny_training: dict[str, Any]) -> None:
    again = trained.run("pretrain.train", run="another", dataset_uri=str(trained.dataset), **tiny_training)
    assert again == trained.outputs


def start_training(deployment: settings.Settings, inputs: dict[str, Any], extra: str = "") -> "subprocess.Popen[str]":
    script = (
        "import json, sys; from telecine import component, settings; from telecine.execution import Call, execute\n"
        "found = component.find('pretrain.train')\n"
        "inputs = found.parse(json.loads(sys.argv[1]))\n"
        "call = Call(component=found, inputs=inputs, run='killed', task='pretrain.train',"
        " settings=settings.from_environment())\n"
        "try:\n    print(json.dumps(execute(call).outputs))\n"
        "except Exception as error:\n    sys.exit(getattr(error, 'exit_code', 1))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(inputs)],
        env=os.environ | deployment.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(deployment: settings.Settings, process: "subprocess.Popen[str]", step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = (deployment.home / "store").glob("work/pretrain.train/*/checkpoints/*/commit.json")
        if any(int(path.parent.name) >= step for path in found):
            return
        assert process.poll() is None, "the training ended before it could be interrupted"
        time.sleep(0.002)
    raise TimeoutError(f"no checkpoint at step {step}")


def test_a_training_killed_and_preempted_ends_with_the_bytes_of_the_undisturbed_one(
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    trained: Any,
    tiny_training: dict[str, Any],
) -> None:
    inputs = {"dataset_uri": str(make_dataset(deployment)), **tiny_training}
    killed = start_training(deployment, inputs)
    wait_for_checkpoint(deployment, killed, 5)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL

    preempted = start_training(deployment, inputs)
    wait_for_checkpoint(deployment, preempted, 15)
    preempted.terminate()
    assert preempted.wait() == RetryLater.exit_code

    last = start_training(deployment, inputs)
    stdout, _ = last.communicate()
    assert last.returncode == 0
    assert digests_of(json.loads(stdout)["model_uri"]) == digests_of(trained.outputs.model_uri)

    works = list((deployment.home / "store" / "work" / "pretrain.train").iterdir())
    assert len(works) == 1, "all attempts meet at one address"
    beats = [json.loads(path.read_text())["progress"] for path in (works[0] / "beats").iterdir()]
    ends = next(progress for progress in beats if progress["done"] == tiny_training["num_steps"])
    # Whatever was done after the last checkpoint is repeated, and nothing before it.
    assert ends["values"]["executed"] <= tiny_training["num_steps"] - 15


def shrunk(dataset: Path, keep: str) -> None:
    table = pq.read_table(dataset / "index.parquet")
    rows = [row for row in table.to_pylist() if row["split"] == keep]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), dataset / "index.parquet")


def test_a_batch_that_nobody_chose_is_no_larger_than_the_data(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
) -> None:
    chosen = {name: value for name, value in tiny_training.items() if name != "batch_size"} | {"num_steps": 4}
    dataset = make_dataset(deployment)
    left, given = (
        run_component("pretrain.train", dataset_uri=dataset, **chosen, **batch) for batch in ({}, {"batch_size": 12})
    )
    assert digests_of(left.model_uri) == digests_of(given.model_uri)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 13}, "batch_size must be at most the 12 training samples, got 13"),
        ({"patch_px": 3}, "patch_px must divide the samples' 8x8 pixels, got 3"),
        ({"patch_frames": 3}, "patch_frames must divide the samples' 2 frames, got 3"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        (
            {"keep_best": 1, "checkpoint_every_steps": 4, "eval_every_steps": 6},
            "one of checkpoint_every_steps and eval_every_steps must be a multiple of the other, .* got 4 and 6",
        ),
        ({"num_experts": 99, "max_tokens": 1}, "num_experts must be at most 4, the tokens of .*, got 99"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1"),
    ],
)
def test_values_that_cannot_fit_are_refused_before_any_step(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    given: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        run_component("pretrain.train", dataset_uri=make_dataset(deployment), **(tiny_training | given))


@pytest.mark.parametrize(("keep", "missing"), [("train", "val"), ("val", "train")])
def test_a_dataset_without_a_split_is_refused(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    keep: str,
    missing: str,
) -> None:
    dataset = make_dataset(deployment)
    shrunk(dataset, keep)
    with pytest.raises(InputError, match=f"must have {missing} samples"):
        run_component("pretrain.train", dataset_uri=dataset, **tiny_training)


def test_a_clip_that_is_trained_on_and_held_out_is_refused(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
) -> None:
    dataset = make_dataset(deployment)
    rows = pq.read_table(dataset / "index.parquet").to_pylist()
    clip = next(row["clip_id"] for row in rows if row["split"] == "train")
    leaked = [row | {"split": "val"} for row in rows if row["clip_id"] == clip]
    pq.write_table(pa.Table.from_pylist([*rows, *leaked]), dataset / "index.parquet")
    with pytest.raises(InputError, match=f"must be in train or in val, got 1 in both, {clip} among them"):
        run_component("pretrain.train", dataset_uri=dataset, **tiny_training)


def test_a_shard_with_other_bytes_than_the_index_says_is_refused(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
) -> None:
    dataset = make_dataset(deployment)
    shard = next((deployment.home / "store/items").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-512] + b"x" * 512)
    with pytest.raises(InputError, match="other bytes than its index says"):
        run_component("pretrain.train", dataset_uri=dataset, **tiny_training)


def test_training_leaves_the_random_state_of_the_process_alone(trained: Any, tiny_training: dict[str, Any]) -> None:
    from telecine_components.pretrain.train.model import Folders, architecture_of, fresh
    from telecine_components.pretrain.train.spec import Inputs

    before = torch.random.get_rng_state()
    inputs = Inputs(dataset_uri=str(trained.dataset), **tiny_training)  # type: ignore[arg-type]
    folders = Folders(str(trained.dataset))
    first, second = (fresh(inputs, folders, architecture_of(inputs, folders)).transformer for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
