"""The phases of GameFactory by pretrain.train: a base, a LoRA on a game, an action module alone, films without LoRA.

Footage is Backlot's, in which a player's actions move the camera.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from telecine.errors import InputError
from telecine_components.training.annotations import num_keys
from telecine_components.training.loader import Loader, read_index
from telecine_components.training.losses import velocity_loss
from telecine_models.denoiser import SteeredDenoiser
from telecine_models.pipeline import TelecinePipeline
from telecine_models.video_dit.action import Actions

Run = Callable[..., Any]
TRAIN = "pretrain.train"
FOOTAGE: dict[str, Any] = {"num_clips": 24, "num_frames": 4, "width_px": 16, "height_px": 16, "subject": "play"}
SIZE: dict[str, Any] = {"num_frames": 4, "height_px": 16, "width_px": 16, "num_steps": 4, "guidance_scale": 1.0}
STEER: dict[str, Any] = {"train_actions": True, "num_steps": 60, "learning_rate": 1e-2}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def train(trained: Any, tiny_training: dict[str, Any]) -> Run:
    return lambda **inputs: trained.run(TRAIN, run="actions", **({**tiny_training, "patch_frames": 1} | inputs))


@pytest.fixture(scope="module")
def game(trained: Any) -> str:
    """Footage of a game, with its actions."""
    uri: str = trained.run("backlot.encode", **FOOTAGE, style="block game", seed=100).dataset_uri
    return uri


@pytest.fixture(scope="module")
def base(trained: Any, train: Run) -> Any:
    """Phase 0: the open world."""
    return train(dataset_uri=trained.run("backlot.encode", **FOOTAGE, style="open world").dataset_uri)


@pytest.fixture(scope="module")
def looks(train: Run, base: Any, game: str) -> Any:
    """Phase 1: a LoRA that learns the game's look."""
    return train(dataset_uri=game, model_uri=base.model_uri, lora_rank=2)


@pytest.fixture(scope="module")
def steered(train: Run, looks: Any, game: str) -> Any:
    """Phase 2: the action module alone."""
    return train(dataset_uri=game, model_uri=looks.model_uri, **STEER)


def pipeline_of(outputs: Any) -> TelecinePipeline:
    pipeline = TelecinePipeline.from_pretrained(local(outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipeline


def turns(right_deg: float) -> Actions:
    """A player who only turns."""
    return Actions(keys=torch.zeros(1, 3, 7, dtype=torch.bool), mouse=torch.tensor([right_deg, 0.0]).expand(1, 3, 2))


def test_the_action_module_alone_is_trained_and_published_over_the_base_without_the_lora(
    base: Any, looks: Any, steered: Any
) -> None:
    begun = pytest.approx(looks.eval_loss, rel=1e-6)
    assert steered.eval_loss_untrained == begun, "it begins as nothing, over the LoRA"
    assert steered.eval_loss < steered.eval_loss_untrained, "what the player did says how the view moves"
    assert steered.is_pipeline
    before, after = bytes_of(local(base.model_uri)), bytes_of(local(steered.model_uri))
    added = {"action_control/config.json", "action_control/diffusion_pytorch_model.safetensors"}
    assert set(after) - set(before) == added, "no LoRA"
    assert {name for name in before if after[name] != before[name]} <= {"model_index.json", "trained_on.json"}
    assert b"/store/work/" not in b"".join(after.values())
    checkpoints = sorted(local(steered.model_uri).parents[2].glob("checkpoints/*/*/weights.safetensors"))
    held = {name.partition(".")[0] for path in checkpoints for name in load_file(path)}
    assert held == {"control"}, "nothing else is trained"


def test_another_action_gives_another_film_and_none_the_film_of_the_base(base: Any, steered: Any) -> None:
    pipeline = pipeline_of(steered)
    left, right, none = (
        pipeline("a red box", **SIZE, actions=actions).astype(int) for actions in (turns(-20.0), turns(20.0), None)
    )
    assert np.abs(left - right).mean() > 0.1
    np.testing.assert_array_equal(none, pipeline_of(base)("a red box", **SIZE))


def test_films_are_told_apart_by_what_the_player_did(trained: Any, looks: Any, steered: Any, game: str) -> None:
    pipeline = pipeline_of(steered)
    samples = [each for each in read_index(local(game) / "index.parquet") if each.split == "train"]
    loader = Loader(samples, lambda shard: trained.deployment.home / "store" / shard, seed=0, actions=True)
    batch = loader.gather(range(len(samples)))
    model = SteeredDenoiser(pipeline.transformer, pipeline.action_control)
    noise = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(0))
    t, text = torch.full((len(samples),), 0.7), pipeline.text_encoder.encode(batch.captions)
    assert batch.actions is not None
    swapped = batch.actions.map(lambda tensor: tensor.flip(0))
    with torch.no_grad():
        true, false = (
            velocity_loss(model, batch.x0, noise, t, text, actions=each).mean() for each in (batch.actions, swapped)
        )
    assert true < false


def test_an_action_module_goes_on_from_itself(train: Run, steered: Any, game: str) -> None:
    again = train(dataset_uri=game, model_uri=steered.model_uri, train_actions=True, num_steps=4, recompute=True)
    assert pipeline_of(again).action_control.config["window"] == 3


def test_a_model_with_experts_is_not_steered(train: Run, game: str) -> None:
    mixed = train(dataset_uri=game, num_experts=2, num_steps=1)
    with pytest.raises(InputError, match="with train_actions, num_experts must be 0 in the model"):
        train(dataset_uri=game, model_uri=mixed.model_uri, **STEER)


def test_keys_are_those_of_the_footage(game: str, trained: Any) -> None:
    samples = read_index(local(game) / "index.parquet")
    assert num_keys(samples, lambda shard: trained.deployment.home / "store" / shard) == 7


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"model_uri": ""}, "with train_actions, model_uri must be a model to steer"),
        ({"lora_rank": 2}, "with train_actions, lora_rank must be 0; first train the LoRA"),
        ({"sample_every_steps": 2}, "with train_actions, sample_every_steps must be 0"),
        ({"model_uri": "trained"}, "with train_actions, patch_frames must be 1 in the model"),
        ({"dataset_uri": "plain"}, "dataset_uri must carry actions beside its frames, got none"),
        ({"conditions": ["depth"]}, "with train_actions, conditions must be of those that model_uri knows"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_any_step(
    trained: Any, train: Run, looks: Any, game: str, inputs: dict[str, Any], sentence: str
) -> None:
    places = {"plain": str(trained.dataset), "trained": trained.outputs.model_uri}
    given = {"dataset_uri": game, "model_uri": looks.model_uri, **STEER, **inputs}
    given = {name: places.get(value, value) if name.endswith("_uri") else value for name, value in given.items()}
    with pytest.raises(InputError, match=f"pretrain.train: {sentence}"):
        train(**({"patch_frames": 2} | given) if inputs.get("model_uri") == "trained" else given)
