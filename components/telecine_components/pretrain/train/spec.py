"""pretrain.train: train a text-conditioned video model on curated shards, resumable bit for bit."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    dataset_uri: Artifact = param(help="Dataset folder that curate.encode wrote.")
    num_steps: int = param(800, ge=1, help="Optimiser steps.")
    batch_size: int = param(16, ge=1, help="Samples per step.")
    learning_rate: float = param(4e-3, gt=0, help="Learning rate after the warm-up (AdamW).")
    warmup_steps: int = param(20, ge=0, help="Steps over which the learning rate rises linearly.")
    weight_decay: float = param(0.01, ge=0, help="Decoupled weight decay.")
    max_grad_norm: float = param(1.0, gt=0, help="Gradients of a larger norm are scaled down to it.")
    depth: int = param(4, ge=1, le=48, help="Size of the model: blocks; width and heads grow with it.")
    patch_frames: int = param(2, ge=1, help="Frames of a patch; must divide the samples' frames.")
    patch_px: int = param(8, ge=1, help="Side of a spatial patch; must divide the samples' height and width.")
    caption_dropout_ratio: float = param(
        0.1, ge=0, le=1, help="Share of captions dropped for classifier-free guidance."
    )
    ema_decay: float = param(0.99, ge=0, lt=1, help="Decay of the averaged weights, which are the ones published.")
    checkpoint_every_steps: int = param(100, ge=1, help="Steps between checkpoints, so at most this many are repeated.")
    eval_every_steps: int = param(100, ge=1, help="Steps between short measurements of the held-out loss.")
    eval_draws: int = param(8, ge=1, help="Fixed (time, noise) draws per held-out sample in the final measurement.")
    seed: int = param(0, ge=0, help="Seed of initial weights, data order, noise and evaluation.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    model_uri: Artifact = param(help="Pipeline folder in diffusers format with the averaged weights (safetensors).")
    training_uri: Artifact = param(help="Losses per step and the held-out comparison (JSON).")
    final_loss: float = param(help="Mean training loss of the last tenth of the steps.")
    eval_loss: float = param(help="Held-out loss of the trained model, mean over clips.")
    eval_loss_untrained: float = param(help="Held-out loss of the same model before its first step.")
    eval_loss_mean_predictor: float = param(
        help="Held-out loss of the best constant prediction, from the training set."
    )
    gain_over_untrained_low: float = param(help="Lower end of the 95 % interval of (untrained - trained) loss.")
    gain_over_untrained_high: float = param(help="Upper end of that interval.")
    gain_over_mean_predictor_low: float = param(
        help="Lower end of the 95 % interval of (mean predictor - trained) loss."
    )
    gain_over_mean_predictor_high: float = param(help="Upper end of that interval.")
    num_parameters: int = param(help="Parameters of the model that was trained.")
    num_steps: int = param(help="Optimiser steps that the weights have seen.")


COMPONENT = Component(
    name="pretrain.train",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.pretrain.train.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=3.0),
)
