"""align.tune: weigh the films by their rewards, train from the model's weights, write the pipeline."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.align import films
from telecine_components.align.tune.spec import Inputs, Outputs
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.config import TrainingConfig
from telecine_components.training.determinism import deterministic
from telecine_components.training.engine import Engine
from telecine_components.training.films import TRAINED_ON
from telecine_components.training.loader import Loader, StepBatches, read_index
from telecine_components.training.loop import Hooks, StepResult, train
from telecine_components.training.losses import FlowMatching, RewardWeighted, reward_weights
from telecine_components.training.pipelines import load_pipeline
from telecine_components.training.text import CachedText

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """The labelled films, their rewards and their weights, all in one order."""

    loader: Loader
    rewards: list[float]
    weights: list[float]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Tune; see :class:`Inputs`."""
    folder = ctx.fetch(inputs.model_uri)
    if not (folder / TRAINED_ON).is_file():
        raise InputError(f"align.tune: no {TRAINED_ON} in {inputs.model_uri}; pass the folder that a trainer wrote")
    lesson = open_lesson(inputs, ctx)
    with deterministic(inputs.num_threads):
        pipeline = load_pipeline(folder, lora_scale=inputs.lora_scale)
        pipeline.transformer.train()
        engine = Engine(pipeline.transformer, _config(inputs))
        state = _train(engine, CachedText(pipeline.text_encoder), lesson, inputs, ctx)
        with engine.ema.swapped_into(pipeline.transformer):
            pipeline.save_pretrained(ctx.dir / "model", safe_serialization=True)
    shutil.copyfile(folder / TRAINED_ON, ctx.dir / "model" / TRAINED_ON)
    document = _document(lesson, state, inputs)
    (ctx.dir / "tuning.json").write_text(json.dumps(document, indent=1, sort_keys=True))
    figures = {name: document[name] for name in ("final_loss", "reward_of_films", "reward_weighted", "effective_ratio")}
    log.info("event=tuned films=%d reward_of_films=%.4f", len(lesson.loader), document["reward_of_films"])
    return Outputs(
        model_uri=Artifact("model"),
        tuning_uri=Artifact("tuning.json"),
        num_films=len(lesson.loader),
        num_steps=state.step,
        **figures,
    )


def open_lesson(inputs: Inputs, ctx: Context) -> Lesson:
    """The films that have a label, in the order of the index.

    Raises:
        InputError: no film has a label, or fewer than a batch.
    """
    folder = ctx.fetch(inputs.films_uri)
    films.read_rows(folder, owner="align.tune")
    labels = _labels(ctx.fetch(inputs.labels_uri))
    samples = [sample for sample in read_index(folder / "index.parquet") if sample.sample_id in labels]
    if inputs.batch_size > len(samples):
        raise InputError(
            f"align.tune: batch_size must be at most the {len(samples)} labelled films, got {inputs.batch_size}; "
            "lower it or label more pairs"
        )
    rewards = [labels[sample.sample_id]["reward"] for sample in samples]
    groups = [group_of(labels[sample.sample_id]) for sample in samples]
    weights = reward_weights(rewards, groups, inputs.temperature)
    return Lesson(Loader(samples, ctx.path, seed=inputs.seed), rewards, weights)


def group_of(label: dict[str, Any]) -> str:
    """The films that a reward compares with: those of the pair that a person was asked about, else of the caption."""
    return str(label["caption"]) if label["pair"] is None else f"pair {label['pair']}"


def _labels(path: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(path, columns=["sample_id", "caption", "reward", "pair"]).to_pylist()
    return {row["sample_id"]: row for row in rows}


def _config(inputs: Inputs) -> TrainingConfig:
    names = {field.name for field in dataclasses.fields(TrainingConfig)}
    return TrainingConfig(**{name: value for name, value in dataclasses.asdict(inputs).items() if name in names})


def _train(engine: Engine, encode_text: CachedText, lesson: Lesson, inputs: Inputs, ctx: Context) -> TrainingState:
    def steps(number: int) -> StepBatches:
        batch = lesson.loader.weighted_batch(number * inputs.batch_size, inputs.batch_size, lesson.weights)
        return StepBatches([batch], inputs.batch_size, 0.0)

    def observe(result: StepResult) -> None:
        ctx.progress(result.step, inputs.num_steps, loss=result.loss)
        seen = {"train/grad_norm": result.grad_norm, "train/lr": result.learning_rate}
        ctx.tracker.metrics({"train/loss": result.loss, **seen, "perf/step_time_s": result.step_time_s}, result.step)

    ctx.tracker.metrics({"reward/mean": float(np.mean(lesson.rewards)), "reward/std": float(np.std(lesson.rewards))}, 0)
    flow = FlowMatching(
        encode_text=encode_text,
        caption_dropout_ratio=inputs.caption_dropout_ratio,
        seed=inputs.seed,
        num_strata=inputs.batch_size,
        has_experts=bool(engine.module.mixtures),
    )
    return train(
        engine,
        steps=steps,
        loss=RewardWeighted(flow=flow),
        checkpoints=ctx.checkpoints,
        hooks=Hooks(observe=observe, stop_requested=lambda: ctx.stop_requested),
    )


def _document(lesson: Lesson, state: TrainingState, inputs: Inputs) -> dict[str, Any]:
    weights, rewards = np.array(lesson.weights), np.array(lesson.rewards)
    tail = [value for _, value in state.history["train/loss"]][-max(1, inputs.num_steps // 10) :]
    return {
        "num_steps": state.step,
        "temperature": inputs.temperature,
        "final_loss": float(np.mean(tail)),
        "reward_of_films": float(rewards.mean()),
        "reward_weighted": float(np.average(rewards, weights=weights)),
        # Kish's effective sample size, as a share.
        "effective_ratio": float(weights.sum() ** 2 / (weights**2).sum() / len(weights)),
        "films": {
            sample.sample_id: {"reward": reward, "weight": weight}
            for sample, reward, weight in zip(lesson.loader.samples, lesson.rewards, lesson.weights, strict=True)
        },
        "history": state.history,
    }
