"""pretrain.train on conditions in a curriculum, on Backlot's clips through the real components."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from telecine.errors import InputError, RetryLater
from telecine_models.pipeline import TelecinePipeline
from telecine_models.pipeline_inputs import Inputs
from telecine_models.video_dit.action import Actions

Run = Callable[..., Any]
TRAIN = "pretrain.train"
KINDS = ["camera", "elements", "depth", "source", "first_frame"]
CLIPS: dict[str, Any] = {"num_clips": 12, "num_frames": 2, "width_px": 16, "height_px": 16, "element_px": 8}
CURRICULUM: dict[str, Any] = {
    "conditions": KINDS,
    "condition_steps": [0, 4, 8, 8, 12],
    "condition_dropout_ratio": 0.3,
    "num_steps": 24,
    "patch_frames": 1,
}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def clips(trained: Any) -> str:
    """A tiny dataset with conditions."""
    uri: str = trained.run("backlot.encode", **CLIPS).dataset_uri
    return uri


@pytest.fixture(scope="module")
def learn(trained: Any, clips: str, tiny_training: dict[str, Any]) -> Run:
    """Train on it from nothing."""
    base = {"dataset_uri": clips, **tiny_training, **CURRICULUM}
    return lambda **inputs: trained.run(TRAIN, run="conditions", **(base | inputs))


@pytest.fixture(scope="module")
def conditioned(learn: Run) -> Any:
    return learn()


def film(outputs: Any, inputs: Inputs | None) -> np.ndarray[Any, Any]:
    """One film of the trained pipeline, always from the same noise."""
    pipeline = TelecinePipeline.from_pretrained(local(outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    found: np.ndarray[Any, Any] = pipeline(
        "a red circle", num_frames=2, height_px=16, width_px=16, num_steps=3, guidance_scale=1.0, inputs=inputs
    )
    return found


def test_a_model_learns_conditions_and_its_pipeline_films_with_them(conditioned: Any) -> None:
    assert conditioned.eval_loss < conditioned.eval_loss_untrained
    assert conditioned.is_pipeline
    depth = np.linspace(0, 1, 2 * 16 * 16).reshape(2, 16, 16)
    plain, near, far = (film(conditioned, given) for given in (None, Inputs(depth=depth), Inputs(depth=1 - depth)))
    assert (plain != near).any() and (near != far).any()


def test_a_training_stopped_in_mid_curriculum_ends_with_the_bytes_of_one_that_was_not(
    trained: Any, learn: Run, conditioned: Any
) -> None:
    work = trained.deployment.home / "store" / "work" / TRAIN
    known = set(work.iterdir())
    threading.Thread(target=_stop_after_checkpoint, args=(work, known), daemon=True).start()
    # Films in between are all that is other, so that it is work of its own.
    filmed = {"sample_every_steps": 9, "sample_prompts": ["a red square"]}
    with pytest.raises(RetryLater, match="its checkpoint is saved"):
        learn(**filmed)
    again = learn(**filmed)
    assert bytes_of(local(again.model_uri)) == bytes_of(local(conditioned.model_uri))
    assert local(again.training_uri).read_bytes() == local(conditioned.training_uri).read_bytes()


def test_another_order_of_the_same_conditions_is_another_training(learn: Run, conditioned: Any) -> None:
    other = learn(conditions=KINDS[::-1])
    assert other.final_loss != conditioned.final_loss
    joint = learn(condition_steps=[])
    assert len({each.eval_loss for each in (other, joint, conditioned)}) == 3


def test_a_model_of_text_learns_conditions_and_goes_on_as_it_was_without_them(
    trained: Any, learn: Run, conditioned: Any
) -> None:
    text = learn(conditions=[], condition_steps=[])
    wider = learn(model_uri=text.model_uri, conditions=["camera"], condition_steps=[23], learning_rate=1e-6)
    np.testing.assert_allclose(film(text, None).astype(int), film(wider, None).astype(int), atol=2)
    assert (film(wider, None) != film(conditioned, None)).any()
    camera = np.broadcast_to(np.eye(3, 4), (2, 3, 4))
    assert film(wider, Inputs(camera=camera)).shape == (1, 2, 16, 16, 3)
    fewer = learn(model_uri=conditioned.model_uri, conditions=["depth"], condition_steps=[])
    assert fewer.eval_loss < conditioned.eval_loss_untrained
    before, after = (
        TelecinePipeline.from_pretrained(local(each.model_uri)).transformer.conditions_in
        for each in (conditioned, fewer)
    )
    assert (before.bias["camera"] == after.bias["camera"]).all(), "what is not given is not trained"
    assert (before.bias["depth"] != after.bias["depth"]).any()


def test_ranks_that_shard_learn_what_one_process_learns(
    trained: Any, clips: str, conditioned: Any, tiny_training: dict[str, Any], tmp_path: Path
) -> None:
    inputs = {**tiny_training, **CURRICULUM, "dataset_uri": clips, "num_processes": 2, "zero_stage": 3}
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", TRAIN, "--force"]
    command += ["--inputs", json.dumps(inputs), "--result", str(tmp_path / "result.json")]
    environment = os.environ | trained.deployment.environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = json.loads((tmp_path / "result.json").read_text())["outputs"]
    assert outputs["eval_loss"] == pytest.approx(conditioned.eval_loss, rel=1e-3)


def test_cached_pixels_teach_what_frames_teach(trained: Any, learn: Run, clips: str, conditioned: Any) -> None:
    cached = trained.run("pretrain.cache", dataset_uri=clips, dtype="float32", num_threads=1).dataset_uri
    assert learn(dataset_uri=cached).eval_loss == pytest.approx(conditioned.eval_loss, rel=1e-6)


def test_conditions_and_actions_are_learned_on_latents(
    trained: Any, tiny_training: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    blocks = {"dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True]}
    scale = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    vae: Any = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, **blocks, **scale)
    vae.save_pretrained(tmp_path / "vae")
    places = {"vae_uri": str(tmp_path / "vae")}
    played = trained.run("backlot.encode", **(CLIPS | {"num_frames": 5, "subject": "play"})).dataset_uri
    cached = trained.run("pretrain.cache", dataset_uri=played, num_threads=1, **places).dataset_uri
    latents = {**tiny_training, "dataset_uri": cached, "patch_frames": 1, "patch_px": 2, "num_steps": 4}
    begun = trained.run(TRAIN, **latents, **places, conditions=KINDS)
    steered = trained.run(TRAIN, **latents, model_uri=begun.model_uri, conditions=["camera"], train_actions=True)
    pipeline = TelecinePipeline.from_pretrained(local(steered.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    assert pipeline.action_control.config["compression"] == 4
    actions = Actions(keys=torch.ones(1, 4, 7, dtype=torch.bool), mouse=torch.ones(1, 4, 2))
    camera = Inputs(camera=np.broadcast_to(np.eye(3, 4), (5, 3, 4)))
    size = {"num_frames": 5, "height_px": 16, "width_px": 16, "num_steps": 1}
    assert pipeline("a red square", **size, actions=actions, inputs=camera).shape == (1, 5, 16, 16, 3)


def test_experts_and_recomputed_activations_go_together_with_conditions(learn: Run) -> None:
    plain, recomputed = (learn(num_steps=13, num_experts=2, recompute=value) for value in (False, True))
    assert recomputed.eval_loss == pytest.approx(plain.eval_loss, rel=1e-5)


def test_samples_of_several_shapes_learn_conditions_in_passes_of_their_own(
    trained: Any, learn: Run, clips: str, tmp_path: Path
) -> None:
    longer = trained.run("backlot.encode", **(CLIPS | {"num_frames": 4, "seed": 50})).dataset_uri
    tables = [pq.read_table(local(uri) / "index.parquet") for uri in (clips, longer)]
    pq.write_table(pa.concat_tables(tables), tmp_path / "index.parquet")
    whole, bounded = (learn(dataset_uri=str(tmp_path), max_tokens=bound) for bound in (0, 200))
    assert whole.eval_loss < whole.eval_loss_untrained
    assert bounded.eval_loss == pytest.approx(whole.eval_loss, rel=1e-4), "rounding alone"


def test_a_wan_learns_no_conditions(learn: Run, tmp_path: Path) -> None:
    config = {"_class_name": "WanTransformer3DModel", "num_layers": 2, "patch_size": [1, 2, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="model_uri must be a model of ours for conditions, got a Wan"):
        learn(model_uri=str(tmp_path), patch_px=2)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (
            {"dataset_uri": "plain"},
            "dataset_uri must carry camera, elements, depth, source beside its frames, got none",
        ),
        ({"conditions": ["depth", "depth"], "condition_steps": []}, "conditions must be different kinds"),
        ({"conditions": ["smell"]}, "conditions must be one of"),
        ({"condition_steps": [0, 4]}, "condition_steps must be 5 steps, one for each of conditions, that never fall"),
        ({"condition_steps": [0, 4, 3, 8, 9]}, "condition_steps must be 5 steps"),
        ({"condition_steps": [0, 4, 8, 8, 24]}, "and lie below num_steps 24"),
        ({"patch_px": 16, "conditions": ["elements"], "condition_steps": []}, "elements must be .*multiples of 16"),
        (
            {"model_uri": "text", "lora_rank": 2},
            "with lora_rank, conditions must be of those that model_uri knows, .*got .'camera'",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_before_any_step(
    trained: Any, learn: Run, inputs: dict[str, Any], sentence: str
) -> None:
    work = trained.deployment.home / "store" / "work" / TRAIN
    before = set(work.glob("*/checkpoints/*"))
    places = {"plain": str(trained.dataset), "text": trained.outputs.model_uri}
    given = {name: places.get(str(value), value) for name, value in inputs.items()}
    with pytest.raises(InputError, match=f"pretrain.train: .*{sentence}"):
        learn(**given, patch_frames=2) if "text" in inputs.values() else learn(**given)
    assert set(work.glob("*/checkpoints/*")) == before


def _stop_after_checkpoint(work: Path, known: set[Path]) -> None:
    """Ask this process to stop, as Kubernetes does, once a work that was not there before has a checkpoint."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(True for folder in set(work.iterdir()) - known for _ in folder.glob("checkpoints/*/commit.json")):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.002)
