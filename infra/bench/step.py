"""step_vs_bare_loop: a step of our trainer, everything a run has switched on, against a plain loop over PyTorch.

Ours is ``training.loop.train`` within an attempt that beats, watched as ``pretrain.train`` watches: metrics to an
MLflow server of this machine, progress, history, ledger, watchdog. The plain loop has the same model, AdamW, clipping,
average, learning rates and batches, and nothing else. A step is the time from one end of a step to the next; legs are
interleaved, the figure is the mean step, in which what is sent now and then counts. Checkpoints have a row of their own
and lie outside.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import mlflow_local
from intervals import spread
from rows import Comparison, Trial
from telecine.config import Artifact
from telecine.context import Context
from telecine.reading import Reader
from telecine.storage import Store
from telecine.tracking import RunTracker
from telecine.work.attempts import Attempt
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine.work.items import Items
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.pretrain.train.watch import Watcher
from telecine_components.training.config import TrainingConfig
from telecine_components.training.determinism import deterministic
from telecine_components.training.engine import Engine
from telecine_components.training.ledger import open_ledger
from telecine_components.training.loader import Batch, StepBatches
from telecine_components.training.loop import Hooks, StepResult, train
from telecine_components.training.losses import FlowMatching
from telecine_components.training.randomness import generator, torch_seed
from telecine_components.training.ranks import Ranks
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT

TARGET = 1.02
NUM_STEPS = {"short": 6, "full": 60}
MODEL = {
    "short": {"num_layers": 1, "num_heads": 2, "head_dim": 16},
    "full": {"num_layers": 4, "num_heads": 4, "head_dim": 32},
}
SHAPE = {"short": (2, 3, 2, 8, 8), "full": (8, 3, 8, 16, 16)}
WARM_STEPS = 3
LEGS_PER_RUN = 3
CAPTIONS = ("a red square moves right", "a blue circle falls", "two green triangles")

Weights = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Leg:
    """Seconds of each step after the first few, and the weights and their average at the end."""

    steps_s: list[float]
    weights: Weights

    @property
    def mean_s(self) -> float:
        """Of a step."""
        return statistics.fmean(self.steps_s)

    @property
    def median_s(self) -> float:
        """Of a step."""
        return statistics.median(self.steps_s)


class Setting:
    """Model, batches and loss of both sides; everything is a function of the size."""

    def __init__(self, size: str) -> None:
        self.shape, self._model = SHAPE[size], MODEL[size]
        self.config = TrainingConfig(
            num_steps=NUM_STEPS[size],
            batch_size=self.shape[0],
            learning_rate=1e-3,
            warmup_steps=5,
            weight_decay=0.01,
            checkpoint_every_steps=10**9,
        )
        encode_text = CachedText(HashTextEncoder(text_dim=64))
        self.loss = FlowMatching(encode_text=encode_text, caption_dropout_ratio=0.1, seed=0, num_strata=self.shape[0])

    def model(self) -> torch.nn.Module:
        """The untrained model."""
        torch.manual_seed(torch_seed(0, 0))
        model: torch.nn.Module = VideoDiT(**self._model)
        return model

    def batch(self, step: int) -> Batch:
        """Noise of the shape of films, and captions in turn."""
        positions = tuple(range(step * self.shape[0], (step + 1) * self.shape[0]))
        captions = [CAPTIONS[position % len(CAPTIONS)] for position in positions]
        return Batch(torch.rand(self.shape, generator=generator(1, step)) * 2 - 1, captions, positions=positions)


def step_vs_bare_loop(trial: Trial) -> Comparison:
    """Legs of both in turn; the first of each is not counted."""
    setting, num_pairs = Setting(trial.size), LEGS_PER_RUN * trial.num_runs
    pairs: list[tuple[Leg, Leg]] = []
    trial.progress(0, num_pairs)
    with mlflow_local.server(trial.folder / "server") as url, deterministic(1):
        sides = {"ours": partial(ours, setting, url=url, folder=trial.folder), "bare": partial(bare, setting)}
        for number in range(-1, num_pairs):
            found = {}
            for name in list(sides) if number % 2 else reversed(list(sides)):
                found[name] = sides[name](number=number)
            if number >= 0:
                pairs.append((found["ours"], found["bare"]))
            trial.progress(number + 1, num_pairs)
    return compared(pairs)


def bare(setting: Setting, *, number: int) -> Leg:
    """The plain loop; ``number`` is not used."""
    model, config = setting.model(), setting.config
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    ends = []
    for step in range(config.num_steps):
        loss = setting.loss(model, [setting.batch(step)]).total() / config.batch_size
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.parameters()), 1.0 - decay)
        loss.item()
        ends.append(time.perf_counter())
    return Leg(_differences(ends), _weights(model, average))


def ours(setting: Setting, *, url: str, folder: Path, number: int) -> Leg:
    """The trainer in an attempt of its own."""
    ends: list[float] = []
    config = setting.config
    inputs = Inputs(dataset_uri=Artifact("none"), num_steps=config.num_steps, batch_size=config.batch_size)
    with attempt(folder / f"home-{number}", url) as ctx:
        engine, ledger = Engine(setting.model(), config), open_ledger(ctx)
        with Watcher(inputs, ctx, ledger, Ranks()) as watcher:

            def observe(result: StepResult) -> None:
                ends.append(time.perf_counter())
                watcher.observe(result)

            train(
                engine,
                steps=lambda step: StepBatches([setting.batch(step)], config.batch_size, 0.0),
                loss=setting.loss,
                checkpoints=ctx.checkpoints,
                hooks=Hooks(observe=observe, stop_requested=lambda: ctx.stop_requested),
                ledger=ledger,
            )
        ctx.tracker.complete()
        return Leg(_differences(ends), _weights(engine.module, engine.ema.weights))


def _differences(ends: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip(ends[WARM_STEPS:], ends[WARM_STEPS + 1 :], strict=False)]


def _weights(model: torch.nn.Module, average: Weights) -> Weights:
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return weights | {f"average of {name}": tensor.clone() for name, tensor in average.items()}


@contextlib.contextmanager
def attempt(home: Path, url: str) -> Iterator[Context]:
    """The context of an attempt that beats, over a local store and a served tracker."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    run_id = client.create_run("0").info.run_id
    store, digests, prefix = Store(f"file://{home}/store"), Digests(home), "work/bench.step/key"
    (home / "scratch").mkdir()
    with Attempt(store, prefix, run="bench", task="step", superseded=lambda: False) as living:
        tracker = RunTracker(client, run_id, run_id, leads=lambda: not living.rivals(), rivals=living.rivals)
        yield Context(
            component="bench.step",
            key="key",
            run="bench",
            attempt=living.id,
            dir=home,
            scratch=home / "scratch",
            code_digest="0" * 64,
            checkpoints=_checkpoints(store, digests, prefix, living, home / "scratch", tracker),
            tracker=tracker,
            store=store,
            _reader=Reader(store, home / "scratch"),
            _digests=digests,
            _items=_items(store, digests, living, home / "scratch"),
            _attempt=living,
            _preempted=living.stop,
        )


def _checkpoints(
    store: Store, digests: Digests, prefix: str, living: Attempt, scratch: Path, tracker: RunTracker
) -> Checkpoints:
    return Checkpoints(
        store,
        digests,
        work_prefix=prefix,
        attempt=living.id,
        scratch=scratch,
        before_commit=tracker.settle,
        resume=tracker.resume,
        rivals=living.rivals,
    )


def _items(store: Store, digests: Digests, living: Attempt, scratch: Path) -> Items:
    return Items(
        store, digests, component="bench.step", source_digest="", attempt=living.id, scratch=scratch, force=False
    )


def compared(pairs: Sequence[tuple[Leg, Leg]]) -> Comparison:
    """The row; other weights at the end claim no ratio."""
    gate = _gate(pairs)
    stands, ratio, sure = gate == "equal", _ratio(pairs), spread(_ratio, pairs)
    return Comparison(
        what=(
            "milliseconds of a training step of a tiny video DiT with tracking, progress and history, "
            "against a plain PyTorch loop; one thread"
        ),
        ours=1000 * statistics.fmean(ours.mean_s for ours, _ in pairs),
        peer=1000 * statistics.fmean(bare.mean_s for _, bare in pairs),
        ratio=ratio if stands else None,
        low=sure.low if stands else None,
        high=sure.high if stands else None,
        limit="1: the same products",
        target=f"ratio <= {TARGET}",
        holds=stands and ratio <= TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details={
            "what_low_and_high_are": sure.kind,
            "ratio_of_median_steps": sum(ours.median_s for ours, _ in pairs) / sum(bare.median_s for _, bare in pairs),
            "steps_of_each_leg": len(pairs[0][0].steps_s),
        },
    )


def _ratio(pairs: Sequence[tuple[Leg, Leg]]) -> float:
    return sum(ours.mean_s for ours, _ in pairs) / sum(bare.mean_s for _, bare in pairs)


def _gate(pairs: Sequence[tuple[Leg, Leg]]) -> str:
    odd = [
        f"{name} by {(ours.weights[name] - tensor).abs().max().item():.1e}"
        for ours, bare in pairs
        for name, tensor in bare.weights.items()
        if not torch.equal(ours.weights[name], tensor)
    ]
    return f"differs: {odd[0]}, and {len(odd) - 1} more of {len(pairs)} pairs" if odd else "equal"
