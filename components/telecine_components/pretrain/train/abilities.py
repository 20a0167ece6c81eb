"""What a video DiT learns beside text: conditions in a curriculum, and to obey a player's actions."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from telecine.errors import InputError
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.annotations import has, num_keys
from telecine_components.training.loader import Loader, Sample
from telecine_components.training.randomness import torch_seed
from telecine_models.denoiser import SteeredDenoiser
from telecine_models.pipeline import TelecinePipeline
from telecine_models.video_dit import conditions
from telecine_models.video_dit.action import ActionControl
from telecine_models.video_dit.config import KINDS, VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

_INIT_STREAM = 8
_EMBEDDER = "conditions_in."


def check(inputs: Inputs, config: VideoDiTConfig | Mapping[str, Any]) -> None:
    """Raise :class:`InputError` where inputs do not go together, with each other or with the model.

    Args:
        config: of a video DiT, or of a Wan.
    """
    _check_curriculum(inputs)
    if not inputs.conditions and not inputs.train_actions:
        return
    if not isinstance(config, VideoDiTConfig):
        asked = "train_actions" if inputs.train_actions else "conditions"
        raise InputError(
            f"pretrain.train: model_uri must be a model of ours for {asked}, got a Wan, which knows text alone; "
            f"leave {asked} out"
        )
    if not inputs.train_actions:
        return
    rules = {
        "model_uri": (bool(inputs.model_uri), "a model to steer, which stays as it is"),
        "lora_rank": (not inputs.lora_rank, "0; first train the LoRA, then give its result as model_uri"),
        "patch_frames": (config.patch_size[0] == 1, "1 in the model, so that every frame has its actions"),
        "num_experts": (not config.num_experts, "0 in the model, whose thresholds would move"),
        "sample_every_steps": (not inputs.sample_every_steps, "0, as films of prompts show nothing of actions"),
    }
    if broken := [f"{name} must be {rule}" for name, (holds, rule) in rules.items() if not holds]:
        raise InputError(f"pretrain.train: with train_actions, {'; '.join(broken)}")


def _check_curriculum(inputs: Inputs) -> None:
    kinds, steps = inputs.conditions, inputs.condition_steps
    if len(set(kinds)) < len(kinds):
        raise InputError(f"pretrain.train: conditions must be different kinds, got {list(kinds)}")
    if not steps:
        return
    rises = all(one <= other for one, other in itertools.pairwise(steps))
    if len(steps) != len(kinds) or not rises or steps[-1] >= inputs.num_steps:
        raise InputError(
            f"pretrain.train: condition_steps must be {len(kinds)} steps, one for each of conditions, that never fall "
            f"and lie below num_steps {inputs.num_steps}, got {list(steps)}"
        )


def taught(inputs: Inputs, config: VideoDiTConfig) -> VideoDiTConfig:
    """The model with the conditions that it is to learn beside those that it knows.

    Raises:
        InputError: new ones where only a LoRA or an action module is trained, neither of which can learn them.
    """
    new = [kind for kind in inputs.conditions if kind not in config.conditions]
    if new and (inputs.lora_rank or inputs.train_actions):
        only = "lora_rank" if inputs.lora_rank else "train_actions"
        raise InputError(
            f"pretrain.train: with {only}, conditions must be of those that model_uri knows, "
            f"{list(config.conditions)}, got {new}; train the whole model on them first"
        )
    return dataclasses.replace(config, conditions=tuple(k for k in KINDS if k in {*config.conditions, *new}))


def widened(model: VideoDiT, config: VideoDiTConfig, seed: int) -> VideoDiT:
    """The model with conditions that it did not know, their projections drawn anew, and all else as it was."""
    if model.size == config:
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, _INIT_STREAM))
        wider: VideoDiT = VideoDiT(**dataclasses.asdict(config))
    lacking, unknown = wider.load_state_dict(model.state_dict(), strict=False)
    assert not unknown and all(name.startswith(_EMBEDDER) for name in lacking)
    return wider


def freeze_others(model: VideoDiT, kinds: Sequence[str]) -> None:
    """Keep what a model knows of conditions that it is not trained on, in place."""
    embedder = model.conditions_in
    for kind in model.size.conditions:
        if embedder is not None and kind not in kinds:
            embedder.project[kind].requires_grad_(False)
            embedder.bias[kind].requires_grad_(False)


def steered(
    pipeline: TelecinePipeline, inputs: Inputs, samples: Sequence[Sample], locate: Callable[[str], Path]
) -> SteeredDenoiser:
    """A pipeline's model, frozen, under the action module that it has, or under one that does nothing yet."""
    transformer: VideoDiT = pipeline.transformer
    control: ActionControl | None = pipeline.action_control
    size, keys = transformer.size, num_keys(samples, locate)
    if control is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(inputs.seed, _INIT_STREAM, 1))
            control = ActionControl(
                width=size.width,
                num_layers=size.num_layers,
                num_heads=size.num_heads,
                head_dim=size.head_dim,
                num_keys=keys,
                compression=pipeline.latents.compression.frames,
                window=inputs.action_window,
            )
    if control.config["num_keys"] != keys:
        raise InputError(
            f"pretrain.train: the action module of model_uri knows {control.config['num_keys']} keys, got a dataset "
            f"with {keys}; give footage of the same game"
        )
    transformer.requires_grad_(False)
    return SteeredDenoiser(transformer, control)


def check_samples(config: VideoDiTConfig, train: Loader) -> None:
    """Read one sample of each kind that is trained, and raise :class:`InputError` where the model cannot take it."""
    for kind in train.beside:
        index = next(number for number, sample in enumerate(train.samples) if has(sample, kind))
        batch = train.gather([index])
        frames, height, width = batch.x0.shape[2:]
        if batch.conditions is None:
            continue
        try:
            conditions.check(batch.conditions, config, (frames, height, width), 1)
        except ValueError as error:
            name = train.samples[index].sample_id
            raise InputError(f"pretrain.train: sample {name} of dataset_uri does not fit the model: {error}") from error
