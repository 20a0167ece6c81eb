"""align.tune: one round of reward-weighted regression (Flow-RWR) on collected films, resumable bit for bit."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_uri: Artifact = param(help="Pipeline folder whose weights are tuned, a LoRA beside them added.")
    films_uri: Artifact = param(help="Folder that align.collect wrote.")
    labels_uri: Artifact = param(help="Labels that align.label wrote for these films.")
    lora_scale: float = param(1.0, ge=0, help="What a LoRA beside the model's weights is multiplied with; 0 for none.")
    temperature: float = param(
        0.03, gt=0, help="Reward difference within a prompt that counts e times as much; large weighs all films alike."
    )
    num_steps: int = param(300, ge=1, help="Optimiser steps.")
    batch_size: int = param(16, ge=1, help="Films per step.")
    learning_rate: float = param(1e-3, gt=0, help="Learning rate after the warm-up (AdamW).")
    warmup_steps: int = param(20, ge=0, help="Steps over which the learning rate rises linearly.")
    weight_decay: float = param(0.0, ge=0, help="Decoupled weight decay.")
    max_grad_norm: float = param(1.0, gt=0, help="Gradients of a larger norm are scaled down to it.")
    caption_dropout_ratio: float = param(
        0.1, ge=0, le=1, help="Share of captions dropped for classifier-free guidance."
    )
    ema_decay: float = param(0.95, ge=0, lt=1, help="Decay of the averaged weights, which are the ones published.")
    checkpoint_every_steps: int = param(100, ge=1, help="Steps between checkpoints, so at most this many are repeated.")
    seed: int = param(0, ge=0, help="Seed of data order, noise and dropped captions.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    model_uri: Artifact = param(help="Pipeline folder with the tuned, averaged weights (safetensors).")
    tuning_uri: Artifact = param(help="Loss per step, weights and rewards (JSON).")
    final_loss: float = param(help="Mean weighted loss of the last tenth of the steps.")
    reward_of_films: float = param(help="Mean reward of the films, before tuning.")
    reward_weighted: float = param(help="Their weighted mean: what a perfect fit of the weights would earn.")
    effective_ratio: float = param(help="Effective number of films over their number; low means few films decide.")
    num_films: int = param(help="Labelled films that were trained on.")
    num_steps: int = param(help="Optimiser steps of this round.")


COMPONENT = Component(
    name="align.tune",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.align.tune.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=3.0),
)
