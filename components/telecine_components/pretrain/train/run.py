"""pretrain.train: check the data, train to the last step, compare on held-out clips, write the pipeline."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from telecine.config import Artifact
from telecine.context import Context
from telecine.nodes import Nodes
from telecine_components.pretrain.train import abilities, heldout, looks, model
from telecine_components.pretrain.train.curves import plot_losses
from telecine_components.pretrain.train.data import Splits, open_splits
from telecine_components.pretrain.train.fit import (
    MEASURED_AFTER,
    MEASURED_BEFORE,
    Job,
    config_of,
    fit,
    follow,
    job_of,
    with_batch_size,
)
from telecine_components.pretrain.train.looks import Films
from telecine_components.pretrain.train.model import Folders, Subject
from telecine_components.pretrain.train.spec import Inputs, Outputs
from telecine_components.pretrain.train.watch import Watcher, others_watched
from telecine_components.training import ranks as processes
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.determinism import deterministic
from telecine_components.training.engine import Engine
from telecine_components.training.ledger import Ledger, compiling, open_ledger
from telecine_components.training.loop import Hooks
from telecine_components.training.losses import EncodeText
from telecine_components.training.ranks import Ranks
from telecine_models.video_dit.config import VideoDiTConfig

log = logging.getLogger(__name__)

# A short look at the held-out loss: enough to see the curve fall, too little to slow the run.
_QUICK_SAMPLES, _QUICK_DRAWS = 8, 4


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training ends with: its state, and the held-out losses [num_val] of the model before and after."""

    state: TrainingState
    before: np.ndarray
    after: np.ndarray
    num_parameters: int
    is_pipeline: bool


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Train one model; see :class:`Inputs`."""
    ledger = open_ledger(ctx)
    with ledger.spend("init"):
        folders = Folders.fetch(inputs, ctx.fetch)
        inputs = with_batch_size(inputs, folders)
        splits = open_checked(inputs, folders, ctx)
        if splits.left_out:
            log.warning("event=held_out_left_out samples=%s reason='not finite'", ",".join(splits.left_out))
        _log_dataset(inputs, ctx, splits)
        job = job_of(inputs, folders, ctx.path)
    with contextlib.ExitStack() as block:
        with ledger.spend("init"):
            ranks = block.enter_context(processes.together(inputs.num_processes, follow, job))
            block.enter_context(deterministic(inputs.num_threads))
            if inputs.compile:
                block.enter_context(compiling(ledger))
        try:
            trained = _train(job, splits, ranks, ledger, ctx)
        except BaseException:
            ledger.rest("lost_work")
            raise
        ledger.rest("init")  # until the ranks have parted
    with ledger.spend("evaluation"), deterministic(inputs.num_threads):
        document = _document(inputs, splits, trained)
        (ctx.dir / "training.json").write_text(json.dumps(document, indent=1, sort_keys=True))
        _log_curves(document, ctx)
    ledger.rest("checkpoint_save")
    return _outputs(document, is_pipeline=trained.is_pipeline)


def open_checked(inputs: Inputs, folders: Folders, ctx: Context) -> Splits:
    """The dataset, checked against the model and the inputs before anything is loaded or any step is spent."""
    looks.check(inputs)
    architecture = model.architecture_of(inputs, folders)
    num_ranks = inputs.num_processes * Nodes.from_environment().count
    model.check_sharing(inputs, architecture, num_ranks)
    abilities.check(inputs, architecture.config)
    splits = open_splits(
        Path(folders.dataset),
        ctx.path,
        ctx.digest,
        batch_size=inputs.batch_size,
        num_ranks=num_ranks // inputs.sequence_parallel,
        patch=architecture.patch,
        seed=inputs.seed,
        conditions=inputs.conditions,
        actions=inputs.train_actions,
    )
    model.check_fit(inputs, folders, architecture, splits.samples)
    model.check_experts(inputs, architecture, splits.train.samples, num_ranks // inputs.sequence_parallel)
    model.check_encoders(folders, ctx.digest)
    if isinstance(architecture.config, VideoDiTConfig):
        abilities.check_samples(architecture.config, splits.train)
    return splits


def _train(job: Job, splits: Splits, ranks: Ranks, ledger: Ledger, ctx: Context) -> Trained:
    """Train as rank 0, measure before and after, write the model."""
    inputs = job.inputs
    with others_watched(inputs, ctx, ledger, ranks):
        with ledger.spend("init"):
            subject = job.subject(splits)
            num_parameters = sum(parameter.numel() for parameter in subject.module.parameters())
        with ledger.spend("evaluation"):
            before = _evaluate(subject.module.to(ranks.device), subject.encode_text, splits, inputs)
            ranks.await_leader(MEASURED_BEFORE)
        with ledger.spend("init"):
            engine = Engine(subject.module, config_of(inputs), ranks)
    with contextlib.ExitStack() as block:
        with Watcher(inputs, ctx, ledger, ranks) as watcher:
            hooks = Hooks(
                observe=watcher.observe,
                evaluate=_looks(engine, subject, splits, inputs, watcher, ctx),
                stop_requested=lambda: ctx.stop_requested,
            )
            state = fit(engine, splits, subject, inputs, ctx.checkpoints, hooks, ledger)
            block.enter_context(ledger.spend("evaluation"))
            averaged = block.enter_context(engine.averaged())  # the last that ranks do together
        after = _evaluate(averaged, subject.encode_text, splits, inputs)
        with ledger.spend("checkpoint_save"):
            subject.save(averaged, ctx.dir / "model", inputs, job.folders.model)
            _say_trained_on(splits, ctx.dir / "model")
        ranks.await_leader(MEASURED_AFTER)
    return Trained(state, before, after, num_parameters, is_pipeline=subject.pipeline is not None)


def _looks(
    engine: Engine, subject: Subject, splits: Splits, inputs: Inputs, watcher: Watcher, ctx: Context
) -> Callable[[int], dict[str, float]]:
    """What is looked at after a step, and shown."""

    def evaluate(step: int) -> dict[str, float]:
        found = {}
        if looks.is_measured(inputs, step):
            found = watcher.evaluated(_quick_look(engine, subject.encode_text, splits, inputs), step)
        if looks.is_filmed(inputs, step) and subject.pipeline is not None:
            with engine.averaged() as averaged:
                Films(inputs, subject.pipeline, splits, ctx).make(averaged, step)
        return found

    return evaluate


def _say_trained_on(splits: Splits, folder: Path) -> None:
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


def _quick_look(engine: Engine, encode_text: EncodeText, splits: Splits, inputs: Inputs) -> float:
    with engine.averaged() as module:
        measure = heldout.model_measure(module, encode_text)
        losses = heldout.sample_losses(
            measure, splits.val, num_draws=_QUICK_DRAWS, seed=inputs.seed, limit=_QUICK_SAMPLES
        )
    return float(losses.mean())


def _evaluate(model: torch.nn.Module, encode_text: EncodeText, splits: Splits, inputs: Inputs) -> np.ndarray:
    measure = heldout.model_measure(model, encode_text)
    return heldout.sample_losses(measure, splits.val, num_draws=inputs.eval_draws, seed=inputs.seed)


def _mean_predictor_losses(splits: Splits, inputs: Inputs) -> np.ndarray:
    measure = heldout.constant_measure(heldout.mean_x0(splits.train))
    return heldout.sample_losses(measure, splits.val, num_draws=inputs.eval_draws, seed=inputs.seed)


def _document(inputs: Inputs, splits: Splits, trained: Trained) -> dict[str, Any]:
    num_frames, height_px, width_px = splits.shape
    state = trained.state
    constant = _mean_predictor_losses(splits, inputs)
    tail = [value for _, value in state.history["train/loss"]][-max(1, inputs.num_steps // 10) :]
    return {
        "num_steps": state.step,
        "num_samples_seen": state.num_samples,
        "num_parameters": trained.num_parameters,
        "rollbacks": state.rollbacks,
        "final_loss": float(np.mean(tail)),
        "data": {
            "num_train": len(splits.train),
            "num_val": len(splits.val),
            "val_left_out": list(splits.left_out),
            "num_frames": num_frames,
            "height_px": height_px,
            "width_px": width_px,
            "fps": splits.fps,
        },
        "held_out": compare(trained.after, trained.before, constant, splits, inputs),
        "history": state.history,
    }


def _outputs(document: dict[str, Any], *, is_pipeline: bool) -> Outputs:
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
        is_pipeline=is_pipeline,
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
