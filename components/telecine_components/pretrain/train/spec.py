"""pretrain.train: train a video model on shards, by text and what else they carry, resumable bit for bit."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

PROMPTS = (
    "a large red circle moves right on a blue background",
    "two green squares move down on a yellow background",
)
CONDITIONS = ("first_frame", "last_frame", "source", "depth", "sketch", "camera", "elements", "style")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    dataset_uri: Artifact = param(help="Dataset folder that curate.encode or pretrain.cache wrote.")
    model_uri: Artifact = param(
        "", help="Model to go on from: a pipeline folder of ours, or a Wan 2.1 of diffusers; empty begins untrained."
    )
    vae_uri: Artifact = param("", help="Autoencoder that pretrain.cache was given, for a model that begins untrained.")
    text_encoder_uri: Artifact = param("", help="Text encoder that pretrain.cache was given, in the same case.")
    lora_rank: int = param(0, ge=0, help="Rank of a LoRA beside model_uri, which alone is trained; 0 trains all of it.")
    conditions: tuple[str, ...] = param(
        (), choices=CONDITIONS, help="What videos are conditioned on beside captions, in the order of condition_steps."
    )
    condition_steps: tuple[int, ...] = param(
        (), ge=0, help="Curriculum: the step from which each of conditions is given, rising; empty gives all at once."
    )
    condition_dropout_ratio: float = param(
        0.2, ge=0, le=1, help="Share of samples from which a condition is taken, each kind by itself."
    )
    train_actions: bool = param(
        False,
        help="Train an action module over model_uri, which stays as it is; a LoRA in it takes part and is left out.",
    )
    action_window: int = param(
        3,
        ge=1,
        help="Groups of actions that a latent frame sees: its own and those before it; for a new action module.",
    )
    merge_lora: bool = param(False, help="Publish weights that have the LoRA in them, not the LoRA beside model_uri's.")
    num_steps: int = param(800, ge=1, help="Optimiser steps.")
    batch_size: int = param(
        0,
        ge=0,
        help="Samples per step, on all ranks together, a mean where shapes differ; 0: 16, or all if they are fewer.",
    )
    learning_rate: float = param(4e-3, gt=0, help="Learning rate after the warm-up (AdamW).")
    warmup_steps: int = param(20, ge=0, help="Steps over which the learning rate rises linearly.")
    schedule: str = param("constant", choices=("constant", "wsd", "cosine"), help="Learning rate after the warm-up.")
    decay_ratio: float = param(0.2, gt=0, le=1, help="Last share of the steps, over which wsd falls.")
    final_lr_ratio: float = param(0.0, ge=0, le=1, help="What wsd and cosine leave of the learning rate.")
    weight_decay: float = param(0.01, ge=0, help="Decoupled weight decay.")
    max_grad_norm: float = param(1.0, gt=0, help="Gradients of a larger norm are scaled down to it.")
    depth: int = param(
        4, ge=1, le=48, help="Size of the model: blocks; width and heads grow with it. That of model_uri stays."
    )
    num_experts: int = param(0, ge=0, help="Experts of every second feed-forward (DiffMoE); 0 for a dense model.")
    patch_frames: int = param(2, ge=1, help="Frames of a patch; must divide the samples' frames.")
    patch_px: int = param(8, ge=1, help="Side of a spatial patch; must divide the samples' height and width.")
    caption_dropout_ratio: float = param(
        0.1, ge=0, le=1, help="Share of captions dropped for classifier-free guidance."
    )
    ema_decay: float = param(0.99, ge=0, lt=1, help="Decay of the averaged weights, which are the ones published.")
    precision: str = param(
        "fp32", choices=("fp32", "bf16"), help="What products are computed in; weights stay in float32."
    )
    num_processes: int = param(
        1, ge=1, keyed=False, help="Ranks of each node: one for each GPU, or for some of the processors."
    )
    zero_stage: int = param(
        0,
        ge=0,
        le=3,
        keyed=False,
        help="What ZeRO shards over the ranks: 0 nothing, 1 optimizer state, 2 gradients, 3 weights.",
    )
    sequence_parallel: int = param(
        1, ge=1, keyed=False, help="Ranks that share each sample's tokens (Ulysses); divides all ranks and the heads."
    )
    max_tokens: int = param(0, ge=0, help="Tokens of one forward pass; larger steps are accumulated. 0 for no bound.")
    recompute: bool = param(False, help="Compute activations again in the backward pass instead of keeping them.")
    compile: bool = param(False, help="Compile each block; on a CPU that needs a C++ compiler.")
    checkpoint_every_steps: int = param(100, ge=1, help="Steps between checkpoints, so at most this many are repeated.")
    keep_last: int = param(2, ge=1, help="Newest checkpoints that stay.")
    keep_best: int = param(0, ge=0, help="Checkpoints of the lowest held-out loss that stay.")
    keep_every_steps: int = param(0, ge=0, help="Checkpoints at multiples of this stay; 0 for none.")
    spike_score: float = param(
        0.0, ge=0, help="Robust deviations that make a loss a spike, to go back from; 0 for never."
    )
    max_rollbacks: int = param(3, ge=0, help="Rollbacks in a row, after which a bad step ends the run.")
    hang_floor_s: float = param(
        600.0, gt=0, keyed=False, help="A step may take so long; past that and 5 median steps it hangs."
    )
    eval_every_steps: int = param(100, ge=1, help="Steps between short measurements of the held-out loss.")
    sample_every_steps: int = param(0, ge=0, help="Steps between films of sample_prompts in MLflow; 0 for none.")
    sample_prompts: tuple[str, ...] = param(PROMPTS, help="Captions that are filmed while the model learns.")
    eval_draws: int = param(8, ge=1, help="Fixed (time, noise) draws per held-out sample in the final measurement.")
    seed: int = param(0, ge=0, help="Seed of initial weights, data order, noise and evaluation.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    model_uri: Artifact = param(
        help="Folder in diffusers format with the averaged weights (safetensors): a pipeline, or a Wan."
    )
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
    is_pipeline: bool = param(
        help="Whether the folder films: a pipeline, with or without a LoRA beside its weights; no transformer of a Wan."
    )


COMPONENT = Component(
    name="pretrain.train",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.pretrain.train.run:run",
    follower="telecine_components.pretrain.train.fit:follow_node",
    max_nodes=64,
    image="train",
    resources=Resources(cpus=2, memory_gib=3.0),
)
