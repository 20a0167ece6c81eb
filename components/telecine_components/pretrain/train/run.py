"""pretrain.train: check the data, train to the last step, compare on held-out clips, write the pipeline."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from telecine.config import Artifact
from telecine.context import Context
from telecine_components.pretrain.train import heldout
from telecine_components.pretrain.train.curves import plot_losses
from telecine_components.pretrain.train.data import Splits, open_splits
from telecine_components.pretrain.train.spec import Inputs, Outputs
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.engine import Engine, StepResult, TrainingConfig, deterministic, train
from telecine_components.training.losses import FlowMatching
from telecine_components.training.randomness import torch_seed
from telecine_components.training.text import CachedText
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

log = logging.getLogger(__name__)

_INIT_STREAM = 0
# A short look at the held-out loss: enough to see the curve fall, too little to slow the run.
_QUICK_SAMPLES, _QUICK_DRAWS = 8, 4


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Train one model; see :class:`Inputs`."""
    splits = open_splits(
        ctx.fetch(inputs.dataset_uri),
        ctx.path,
        ctx.digest,
        batch_size=inputs.batch_size,
        patch=patch_size(inputs),
        seed=inputs.seed,
    )
    _log_dataset(inputs, ctx, splits)
    with deterministic(inputs.num_threads):
        pipeline = build_pipeline(inputs)
        encode_text = CachedText(pipeline.text_encoder)
        untrained = _evaluate(pipeline.transformer, encode_text, splits, inputs)
        engine = Engine(pipeline.transformer, _config(inputs))
        state = _train(engine, encode_text, splits, inputs, ctx)
        with engine.ema.swapped_into(pipeline.transformer):
            trained = _evaluate(pipeline.transformer, encode_text, splits, inputs)
            _save_pipeline(pipeline, splits, ctx.dir / "model")
        constant = _mean_predictor_losses(splits, inputs)
    comparison = compare(trained, untrained, constant, splits, inputs)
    num_parameters = pipeline.transformer.num_parameters()
    document = _document(inputs, splits, state, comparison, num_parameters)
    (ctx.dir / "training.json").write_text(json.dumps(document, indent=1, sort_keys=True))
    _log_curves(document, ctx)
    return _outputs(document)


def patch_size(inputs: Inputs) -> tuple[int, int, int]:
    """Frames, rows and columns of one token."""
    return inputs.patch_frames, inputs.patch_px, inputs.patch_px


def build_pipeline(inputs: Inputs) -> TelecinePipeline:
    """The untrained pipeline: a function of depth, patch and seed."""
    config = VideoDiTConfig.from_depth(inputs.depth, patch_size=patch_size(inputs))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(inputs.seed, _INIT_STREAM))
        transformer = VideoDiT(**dataclasses.asdict(config))
    return TelecinePipeline(transformer=transformer, text_encoder=HashTextEncoder(text_dim=config.text_dim))


def _save_pipeline(pipeline: TelecinePipeline, splits: Splits, folder: Path) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    num_frames, height_px, width_px = splits.shape
    video = {"num_frames": num_frames, "height_px": height_px, "width_px": width_px, "fps": splits.fps}
    (folder / "trained_on.json").write_text(json.dumps(video, indent=1, sort_keys=True))


def compare(
    trained: np.ndarray, untrained: np.ndarray, constant: np.ndarray, splits: Splits, inputs: Inputs
) -> dict[str, Any]:
    """Per-clip means of the three contestants' held-out losses [num_val] and the intervals of their differences."""
    clips = [sample.clip_id for sample in splits.val.samples]
    losses = {
        name: heldout.per_clip(values, clips)
        for name, values in (("trained", trained), ("untrained", untrained), ("mean_predictor", constant))
    }
    ours = list(losses["trained"].values())
    gains = {
        name: heldout.paired_difference(ours, list(losses[name].values()), seed=inputs.seed)
        for name in ("untrained", "mean_predictor")
    }
    return {
        "num_clips": len(ours),
        "num_samples": len(clips),
        "num_draws": inputs.eval_draws,
        "loss": {name: float(np.mean(list(values.values()))) for name, values in losses.items()},
        "loss_per_clip": losses,
        "gain_over": {name: dataclasses.asdict(gain) for name, gain in gains.items()},
    }


def _config(inputs: Inputs) -> TrainingConfig:
    names = {field.name for field in dataclasses.fields(TrainingConfig)}
    return TrainingConfig(**{name: value for name, value in dataclasses.asdict(inputs).items() if name in names})


def _train(engine: Engine, encode_text: CachedText, splits: Splits, inputs: Inputs, ctx: Context) -> TrainingState:
    latest = ctx.checkpoints.latest()
    log.info(
        "event=train_start step=%d num_steps=%d num_train=%d",
        latest.step if latest else 0,
        inputs.num_steps,
        len(splits.train),
    )
    executed = 0

    def observe(result: StepResult) -> dict[str, float]:
        nonlocal executed
        executed += 1
        speed = _speed(result, inputs.batch_size)
        shown = {name.removeprefix("perf/"): value for name, value in speed.items()}
        ctx.progress(result.step, inputs.num_steps, loss=result.loss, executed=executed, **shown)
        seen = {"train/grad_norm": result.grad_norm, "train/lr": result.learning_rate}
        if result.step % inputs.eval_every_steps == 0 or result.step == inputs.num_steps:
            seen["eval/loss"] = _quick_look(engine, encode_text, splits, inputs)
        ctx.tracker.metrics({"train/loss": result.loss, **seen, **speed}, result.step)
        return seen

    state = train(
        engine,
        batches=splits.train.batch,
        loss=FlowMatching(
            encode_text=encode_text, caption_dropout_ratio=inputs.caption_dropout_ratio, seed=inputs.seed
        ),
        checkpoints=ctx.checkpoints,
        observe=observe,
        stop_requested=lambda: ctx.stop_requested,
    )
    log.info("event=train_done step=%d executed=%d position=%d", state.step, executed, state.position)
    return state


def _speed(result: StepResult, batch_size: int) -> dict[str, float]:
    return {
        "perf/step_time_s": result.step_time_s,
        "perf/data_wait_s": result.data_wait_s,
        "perf/samples_per_s": batch_size / result.step_time_s,
    }


def _quick_look(engine: Engine, encode_text: CachedText, splits: Splits, inputs: Inputs) -> float:
    with engine.ema.swapped_into(engine.module) as module:
        measure = heldout.model_measure(module, encode_text)
        losses = heldout.sample_losses(
            measure, splits.val, num_draws=_QUICK_DRAWS, seed=inputs.seed, limit=_QUICK_SAMPLES
        )
    return float(losses.mean())


def _evaluate(model: torch.nn.Module, encode_text: CachedText, splits: Splits, inputs: Inputs) -> np.ndarray:
    measure = heldout.model_measure(model, encode_text)
    return heldout.sample_losses(measure, splits.val, num_draws=inputs.eval_draws, seed=inputs.seed)


def _mean_predictor_losses(splits: Splits, inputs: Inputs) -> np.ndarray:
    measure = heldout.constant_measure(heldout.mean_x0(splits.train))
    return heldout.sample_losses(measure, splits.val, num_draws=inputs.eval_draws, seed=inputs.seed)


def _document(
    inputs: Inputs, splits: Splits, state: TrainingState, comparison: dict[str, Any], num_parameters: int
) -> dict[str, Any]:
    num_frames, height_px, width_px = splits.shape
    tail = [value for _, value in state.history["train/loss"]][-max(1, inputs.num_steps // 10) :]
    return {
        "num_steps": state.step,
        "num_samples_seen": state.position,
        "num_parameters": num_parameters,
        "final_loss": float(np.mean(tail)),
        "data": {
            "num_train": len(splits.train),
            "num_val": len(splits.val),
            "num_frames": num_frames,
            "height_px": height_px,
            "width_px": width_px,
            "fps": splits.fps,
        },
        "held_out": comparison,
        "history": state.history,
    }


def _outputs(document: dict[str, Any]) -> Outputs:
    held_out = document["held_out"]
    over_untrained, over_mean = held_out["gain_over"]["untrained"], held_out["gain_over"]["mean_predictor"]
    return Outputs(
        model_uri=Artifact("model"),
        training_uri=Artifact("training.json"),
        final_loss=document["final_loss"],
        eval_loss=held_out["loss"]["trained"],
        eval_loss_untrained=held_out["loss"]["untrained"],
        eval_loss_mean_predictor=held_out["loss"]["mean_predictor"],
        gain_over_untrained_low=over_untrained["low"],
        gain_over_untrained_high=over_untrained["high"],
        gain_over_mean_predictor_low=over_mean["low"],
        gain_over_mean_predictor_high=over_mean["high"],
        num_parameters=document["num_parameters"],
        num_steps=document["num_steps"],
    )


def _log_dataset(inputs: Inputs, ctx: Context, splits: Splits) -> None:
    num_frames, height_px, width_px = splits.shape
    ctx.tracker.dataset(
        name="dataset",
        digest=ctx.digest(ctx.fetch(inputs.dataset_uri)),
        source_uri=inputs.dataset_uri,
        context="training",
        profile={
            "num_train": len(splits.train),
            "num_val": len(splits.val),
            "num_frames": num_frames,
            "height_px": height_px,
            "width_px": width_px,
        },
    )


def _log_curves(document: dict[str, Any], ctx: Context) -> None:
    picture: Path = ctx.scratch / "loss.png"
    plot_losses(document, picture)
    ctx.tracker.artifact(picture, "plots")
