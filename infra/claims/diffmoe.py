"""diffmoe_vs_dense and diffmoe_vs_dense_3x: does a mixture of experts with a batch-level pool beat dense models?

DiffMoE (arXiv 2503.14487) in a small video DiT, against the same with dense feed-forwards at equal activated FLOPs and
against three times as many. All arms see the same clips of Backlot with their captions in the same order with the same
noise, for equally many steps, each at the best of equally many learning rates. Judged by the flow-matching loss of the
averaged weights on held-out clips, at (t, noise) draws that are fixed for each seed.

Activated FLOPs are those of the paper: at capacity 1, experts alone. Router and predictor come on top, some 4 %
of a model this narrow. A further arm, ``diffmoe_counted``, has room for both at equal FLOPs, because its experts take
fewer tokens (:func:`fair_capacity`); what it saves is told beside the row, at the learning rate of ``diffmoe``.

Rule, set before the reported seeds were run: the effect is how much lower DiffMoE's loss is, in per cent of the dense
model's. It presupposes that the thresholds held in evaluation: a measured capacity of at most 1 + CAPACITY_SLACK.
Evaluation routes as published (``count``), with batches that mix samples of all flow times.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tuning
from findings import Finding, Trial, t_interval
from fit import Fitted, Recipe, batch_of, eval_noise_of, fit, noise_of, velocity_loss
from runs import Outcome
from telecine_components.training.randomness import torch_seed
from telecine_models import flops
from telecine_models.backlot import clip
from telecine_models.moe.capacity import CapacityMeter
from telecine_models.moe.diffmoe import Route
from telecine_models.moe.routing import Routing
from telecine_models.moe.thresholds import update_thresholds
from telecine_models.pixels import to_model_range
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

CAPACITY_SLACK = 0.05
NUM_BANDS = 4
"""Quarters of flow time, for which losses are told apart."""
Figures = Mapping[str, float]
_ROUTES: tuple[Route, ...] = ("count", "mask", "static")
_WEIGHTS_STREAM = 41
# So that no two seeds, and no two splits of one, share a clip.
_CLIPS_PER_SEED, _HELD_OUT_FROM = 1_000_000, 500_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What distinguishes the arms' models."""

    num_layers: int
    num_heads: int
    head_dim: int = 16
    num_experts: int = 0

    def config(self, patch_size: tuple[int, int, int]) -> VideoDiTConfig:
        """All that a model is built from."""
        return VideoDiTConfig(patch_size=patch_size, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Clips and time to learn from them, the same for all arms, and the arms.

    Attributes:
        time_shift: moves flow times towards noise, in training and in judging, as video models do (see
            :func:`fit.noise_of`); near the data what limits a model is its width, which the experts do not change.
        side_px: of the clips that are learned.
        drawn_px: of the clips that are drawn, whose pixels are averaged: as a latent does, it leaves patches that are
            smaller than the model is wide, so that what its feed-forwards can do is what limits it.
        num_draws: of flow times and noise for each held-out clip.
    """

    num_clips: int
    num_held_out: int
    num_draws: int
    num_frames: int
    side_px: int
    drawn_px: int
    patch_size: tuple[int, int, int]
    time_shift: float
    num_steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    arms: tuple[tuple[str, Shape], ...]

    def shape(self, arm: str) -> Shape:
        """The model of an arm."""
        return dict(self.arms)[arm]


DENSE, DIFFMOE, COUNTED, DENSE_3X = "dense", "diffmoe", "diffmoe_counted", "dense_3x"
LAPTOP = World(
    num_clips=1024,
    num_held_out=128,
    num_draws=4,
    num_frames=4,
    side_px=8,
    drawn_px=16,
    patch_size=(2, 2, 2),
    time_shift=3.0,
    num_steps=800,
    batch_size=16,
    learning_rates=(2e-3, 5e-3, 1.2e-2),
    arms=(
        (DENSE, Shape(num_layers=4, num_heads=3)),
        (DIFFMOE, Shape(num_layers=4, num_heads=3, num_experts=8)),
        (COUNTED, Shape(num_layers=4, num_heads=3, num_experts=8)),
        (DENSE_3X, Shape(num_layers=7, num_heads=4)),
    ),
)
GPU = dataclasses.replace(
    LAPTOP,
    num_clips=8192,
    num_held_out=512,
    num_frames=8,
    side_px=32,
    drawn_px=32,
    patch_size=(2, 4, 4),
    num_steps=3000,
    batch_size=64,
    learning_rates=(5e-4, 1e-3, 2e-3),
    arms=(
        (DENSE, Shape(num_layers=8, num_heads=4, head_dim=64)),
        (DIFFMOE, Shape(num_layers=8, num_heads=4, head_dim=64, num_experts=8)),
        (COUNTED, Shape(num_layers=8, num_heads=4, head_dim=64, num_experts=8)),
        (DENSE_3X, Shape(num_layers=8, num_heads=7, head_dim=64)),
    ),
)
SHORT = dataclasses.replace(
    LAPTOP,
    num_clips=16,
    num_held_out=16,
    num_draws=1,
    num_steps=3,
    batch_size=8,
    learning_rates=LAPTOP.learning_rates[:2],
)


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Clips in model range [N, 3, F, H, W] and what their captions say: vectors [N, L, D], real tokens [N, L]."""

    x0: Tensor
    text: Tensor
    real: Tensor

    def at(self, index: Tensor) -> "Clips":
        """Some of them; text that none of these has is cut off."""
        real = self.real[index]
        length = int(real.sum(1).max())
        return Clips(self.x0[index], self.text[index, :length], real[:, :length])

    def to(self, device: str) -> "Clips":
        """The same on a device."""
        return Clips(self.x0.to(device), self.text.to(device), self.real.to(device))


@functools.lru_cache(maxsize=2)
def clips(seed: int, first: int, num_clips: int, num_frames: int, side_px: int, drawn_px: int) -> Clips:
    """Clips of all styles, motions and camera moves, drawn for a seed."""
    begin = seed * _CLIPS_PER_SEED + first
    drawn = [
        clip(begin + index, num_frames=num_frames, fps=4, width_px=drawn_px, height_px=drawn_px, style=None)
        for index in range(num_clips)
    ]
    frames = torch.stack([torch.from_numpy(each.frames) for each in drawn])
    text, real = HashTextEncoder().encode([each.truth["caption"] for each in drawn])
    each_px = drawn_px // side_px
    return Clips(nn.functional.avg_pool3d(to_model_range(frames), (1, each_px, each_px)), text, real)


def train_clips(world: World, seed: int) -> Clips:
    """What all arms of a seed learn from."""
    return clips(seed, 0, world.num_clips, world.num_frames, world.side_px, world.drawn_px)


def held_out_clips(world: World, seed: int) -> Clips:
    """What all arms of a seed are judged on."""
    return clips(seed, _HELD_OUT_FROM, world.num_held_out, world.num_frames, world.side_px, world.drawn_px)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One arm on one seed."""

    arm: str
    seed: int
    world: World
    learning_rate: float
    device: str

    def __call__(self) -> Outcome:
        """Train and judge."""
        torch.manual_seed(torch_seed(self.seed, _WEIGHTS_STREAM))
        shape = self.world.shape(self.arm)
        model = fresh(shape, self.world.patch_size)
        nn.Module.to(model, self.device)
        for layer in model.mixtures:
            layer.capacity = _capacity(self.arm, model.size)
        fitted = self._fitted(model)
        with fitted.ema.swapped_into(model):
            figures = judged(model, held_out_clips(self.world, self.seed).to(self.device), self.world, self.seed)
        return Outcome(figures=figures, curves={"train_loss": fitted.curve})

    def _fitted(self, model: VideoDiT) -> Fitted:
        world, train = self.world, train_clips(self.world, self.seed)
        routings: list[Routing] = []

        def loss(_: nn.Module, step: int) -> Tensor:
            batch = train.at(batch_of(world.num_clips, world.batch_size, self.seed, step)).to(self.device)
            times, noise = (
                each.to(self.device) for each in noise_of(batch.x0.shape, self.seed, step, shift=world.time_shift)
            )
            losses, routings[:] = losses_of(model, batch, times, noise)
            # The predictor's loss, weighted 1 as in the paper's configuration, teaches nothing but the predictor.
            return losses.mean() + torch.stack([losses.new_zeros(()), *(each.loss for each in routings)]).sum()

        def move_thresholds() -> None:
            if model.mixtures:
                update_thresholds(model.mixtures, [routings])

        # As in the paper, gradients are not clipped: a norm of all would make the predictor's slow the others'.
        recipe = Recipe(num_steps=world.num_steps, learning_rate=self.learning_rate, max_grad_norm=math.inf)
        return fit(model, loss, recipe, move_thresholds)


def fresh(shape: Shape, patch_size: tuple[int, int, int]) -> VideoDiT:
    """A fresh model; one with experts has the weights of its dense twin wherever both have the same."""
    dense: VideoDiT = VideoDiT(**dataclasses.asdict(dataclasses.replace(shape, num_experts=0).config(patch_size)))
    if not shape.num_experts:
        return dense
    model: VideoDiT = VideoDiT(**dataclasses.asdict(shape.config(patch_size)))
    own = model.state_dict()
    model.load_state_dict(own | {name: value for name, value in dense.state_dict().items() if name in own})
    return model


def losses_of(model: VideoDiT, batch: Clips, times: Tensor, noise: Tensor) -> tuple[Tensor, list[Routing]]:
    """Loss [B] of each clip at its flow time, and what the experts did."""
    routings: list[Routing] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        predicted: Tensor
        predicted, routings[:] = model(x, t, batch.text, batch.real, return_routings=True)
        return predicted

    return velocity_loss(velocity, batch.x0, times, noise), routings


@torch.no_grad()
def judged(model: VideoDiT, held_out: Clips, world: World, seed: int) -> dict[str, float]:
    """Held-out losses: as published, in each band of flow time, and with the other ways to route."""
    model.eval()
    figures: dict[str, float] = {}
    for route in _ROUTES if model.mixtures else _ROUTES[:1]:
        model.route(route)
        losses, times, meter = [], [], CapacityMeter()
        for draw in range(world.num_draws):
            for part in torch.arange(world.num_held_out).split(world.batch_size):
                batch = held_out.at(part)
                index = draw * world.num_held_out + int(part[0])
                t, noise = eval_noise_of(batch.x0.shape, seed, index, shift=world.time_shift)
                found, routings = losses_of(model, batch, t.to(batch.x0.device), noise.to(batch.x0.device))
                losses.append(found.cpu())
                times.append(t)
                if routings:
                    layers = [routing.tokens_per_expert.tolist() for routing in routings]
                    meter.add(layers, routings[0].num_tokens)
        every, when = torch.cat(losses), torch.cat(times)
        figures |= {f"loss_{route}": float(every.mean())}
        figures |= {f"capacity_{route}": meter.average} if model.mixtures else {}
        if route == _ROUTES[0]:
            bands = (when * NUM_BANDS).long()
            figures |= {f"loss_band_{band}": float(every[bands == band].mean()) for band in range(NUM_BANDS)}
    return figures | {"held_out_loss": figures[f"loss_{_ROUTES[0]}"]}


def fair_capacity(config: VideoDiTConfig) -> float:
    """The capacity at which experts, router and capacity predictor together cost what dense feed-forwards cost."""
    dense = sample_flops(dataclasses.replace(config, num_experts=0), capacity=1.0)
    without, usual = (sample_flops(config, capacity=capacity) for capacity in (0.0, 1.0))
    return (dense - without) / (usual - without)


def _capacity(arm: str, config: VideoDiTConfig) -> float:
    """At which an arm's experts are trained."""
    return fair_capacity(config) if arm == COUNTED else 1.0


def sample_flops(config: VideoDiTConfig, *, capacity: float, num_video: int = 1, num_text: int = 0) -> float:
    """FLOPs of one forward pass of a sample; see :mod:`telecine_models.flops`."""
    counted = flops.video_dit(config, num_video_tokens=num_video, num_text_tokens=num_text, capacity=capacity)
    return counted.forward_flops


def vs_dense(trial: Trial) -> Finding:
    """The row ``diffmoe_vs_dense``."""
    return _found(trial, DENSE, "a dense model of equal activated FLOPs")


def vs_dense_3x(trial: Trial) -> Finding:
    """The row ``diffmoe_vs_dense_3x``."""
    return _found(trial, DENSE_3X, "a dense model of three times its activated FLOPs")


def _found(trial: Trial, peer: str, opponent: str) -> Finding:
    world = SHORT if trial.size == "short" else GPU if trial.profile == "gpu" else LAPTOP
    make = functools.partial(_task, trial, world)
    grid = dict.fromkeys((DIFFMOE, peer), world.learning_rates)
    tuned = tuning.tuned(trial.runs, make, grid, trial.tuning_seeds, "held_out_loss")
    rates = {arm: each.best for arm, each in tuned.items()}
    if peer == DENSE:
        rates[COUNTED] = rates[DIFFMOE]
    done = tuning.reported(trial.runs, make, rates, trial.seeds)
    outcomes = {arm: [each.figures for each in found] for arm, found in done.items()}
    capacity = _mean(outcomes[DIFFMOE], "capacity_count")
    return Finding(
        claim=f"A video DiT with DiffMoE reaches a lower held-out loss than {opponent}.",
        unit=f"held-out flow-matching loss saved, in % of that of {peer}",
        effects=dict(zip(trial.seeds, _saved(outcomes[DIFFMOE], outcomes[peer]), strict=True)),
        presupposes={f"measured capacity at most {1 + CAPACITY_SLACK}": capacity <= 1 + CAPACITY_SLACK},
        budget=_budget(world, len(trial.tuning_seeds)),
        details=_details(trial, world, tuned, outcomes),
    )


def _task(trial: Trial, world: World, arm: str, seed: int, rate: float) -> Training:
    return Training(arm=arm, seed=seed, world=world, learning_rate=rate, device=trial.device)


def _saved(ours: Sequence[Figures], theirs: Sequence[Figures]) -> list[float]:
    """Loss saved on each seed, in per cent of theirs."""
    pairs = zip(ours, theirs, strict=True)
    return [100 * (1 - our["held_out_loss"] / their["held_out_loss"]) for our, their in pairs]


def _mean(figures: Sequence[Figures], name: str) -> float:
    return float(np.mean([each[name] for each in figures]))


def _budget(world: World, num_tuning_seeds: int) -> str:
    size = f"{world.num_frames}x{world.side_px}x{world.side_px} (drawn at {world.drawn_px}x{world.drawn_px})"
    return (
        f"each arm: best of {len(world.learning_rates)} learning rates on {num_tuning_seeds} tuning seed(s), "
        f"then {world.num_steps} steps of {world.batch_size} clips of {size} out of {world.num_clips}; judged on "
        f"{world.num_held_out} held-out clips x {world.num_draws} draws"
    )


def _details(
    trial: Trial, world: World, tuned: Mapping[str, tuning.Tuned], outcomes: Mapping[str, Sequence[Figures]]
) -> dict[str, Any]:
    table: dict[str, dict[str, Any]] = {}
    costs = _costs(world, trial.seeds[0])
    for arm, figures in outcomes.items():
        shape = world.shape(arm)
        table[arm] = {
            "layers x width": f"{shape.num_layers} x {shape.num_heads * shape.head_dim}",
            "forward FLOPs with router and predictor, of dense": costs[arm] / costs[DENSE],
            "held-out loss": _mean(figures, "held_out_loss"),
        }
        table[arm] |= {f"t in quarter {band + 1}": _mean(figures, f"loss_band_{band}") for band in range(NUM_BANDS)}
    routes = {
        route: {name: _mean(outcomes[DIFFMOE], f"{name}_{route}") for name in ("loss", "capacity")} for route in _ROUTES
    }
    counted = {}
    if COUNTED in outcomes:
        interval = t_interval(_saved(outcomes[COUNTED], outcomes[DENSE]))
        counted = {"saved with router and predictor counted in: mean, low, high": list(dataclasses.astuple(interval))}
    return {
        "arms": table,
        "routing_in_evaluation": routes,
        **counted,
        "tuning": tuning.table(tuned),
    }


def _costs(world: World, seed: int) -> dict[str, float]:
    """Forward FLOPs of each arm for a sample whose caption has the average length of a seed's held-out clips."""
    num_video = flops.num_tokens((world.num_frames, world.side_px, world.side_px), world.patch_size)
    num_text = round(float(held_out_clips(world, seed).real.sum(1).float().mean()))
    found = {}
    for arm, shape in world.arms:
        config = shape.config(world.patch_size)
        found[arm] = sample_flops(config, capacity=_capacity(arm, config), num_video=num_video, num_text=num_text)
    return found
