"""mixed_shapes_vs_buckets and mixed_shapes_vs_padding: forward and backward of the video DiT on samples of many shapes.

Ours is a planned step in one packed pass. The peers: batches of one exact shape whose number of samples keeps tokens
constant, as Open-Sora's buckets do; and batches of the permutation padded to their longest sample, under a mask.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from intervals import spread
from padded import forward_padded
from rows import Comparison, Trial
from telecine_components.training.plan import Cost, Plan, Shape
from telecine_components.training.randomness import generator, permutation
from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

VARIATION_TARGET = 0.5
PADDING_TARGET = 2.0
# Relative to the largest of them: sums are taken in another order.
TOLERANCE = 1e-4
MAX_TEXT_TOKENS = 16
_SHAPES, _CONTENT, _BUCKETS = 11, 12, 13


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model and a data set: every number of frames with every size, in these shares.

    Attributes:
        frames: number of frames and its share of the samples.
        sizes: height and width in pixels, equally often.
        batch_size: samples of a step, on average.
    """

    depth: int
    patch: tuple[int, int, int]
    frames: tuple[tuple[int, float], ...]
    sizes: tuple[tuple[int, int], ...]
    num_samples: int
    batch_size: int
    pairs_per_run: int

    @property
    def config(self) -> VideoDiTConfig:
        """The model's."""
        return VideoDiTConfig.from_depth(self.depth, patch_size=self.patch)

    @property
    def cost(self) -> Cost:
        """Of a sample, with the captions of :func:`_films`."""
        return Cost.of(self.config, num_text_tokens=MAX_TEXT_TOKENS // 2)

    def shapes(self) -> list[Shape]:
        """Of every sample."""
        draw = np.random.default_rng(_SHAPES)
        numbers, shares = zip(*self.frames, strict=True)
        frames = draw.choice(numbers, size=self.num_samples, p=shares)
        sizes = draw.integers(len(self.sizes), size=self.num_samples)
        return [(int(count), *self.sizes[size]) for count, size in zip(frames, sizes, strict=True)]


SIZES = ((32, 32), (32, 48), (48, 32), (48, 64), (64, 48), (64, 64))
# Images and clips of up to 1024 tokens, of which a step has 3600.
FULL = Setting(6, (1, 8, 8), ((1, 0.4), (4, 0.2), (8, 0.2), (16, 0.2)), SIZES, 6000, 16, 12)
SHORT = Setting(2, (1, 8, 8), ((1, 0.4), (2, 0.3), (4, 0.3)), SIZES[:3], 600, 6, 3)


@dataclasses.dataclass(frozen=True)
class Films:
    """Samples of one shape as a trainer has them: clean, noise, flow times, captions' vectors and their mask."""

    indices: tuple[int, ...]
    x0: Tensor
    noise: Tensor
    t: Tensor
    text: Tensor
    mask: Tensor


Pass = Callable[[VideoDiT, Sequence[Films]], list[Tensor]]
"""Velocities of each batch."""
Steps = Callable[[Setting, int], list[list[tuple[int, ...]]]]
"""Indices of the samples of each batch of as many steps."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Useful tokens and CPU seconds of a step of ours and of the peer."""

    tokens: tuple[int, int]
    seconds: tuple[float, float]


def packed(model: VideoDiT, batches: Sequence[Films]) -> list[Tensor]:
    """One pass over all batches."""
    given = [(interpolate(each.x0, each.noise, each.t), each.t, each.text, each.mask) for each in batches]
    velocities, _ = model.forward_packed(*(list(part) for part in zip(*given, strict=True)))
    return velocities


def separate(model: VideoDiT, batches: Sequence[Films]) -> list[Tensor]:
    """A pass for each batch."""
    return [model(interpolate(each.x0, each.noise, each.t), each.t, each.text, each.mask) for each in batches]


def padded(model: VideoDiT, batches: Sequence[Films]) -> list[Tensor]:
    """One pass in which every sample is as long as the longest."""
    given = [(interpolate(each.x0, each.noise, each.t), each.t, each.text, each.mask) for each in batches]
    return forward_padded(model, given)


def losses_of(run: Pass, model: VideoDiT, batches: Sequence[Films]) -> dict[int, Tensor]:
    """The loss of each sample, by its index."""
    found: dict[int, Tensor] = {}
    for batch, velocity in zip(batches, run(model, batches), strict=True):
        losses = flow_matching_loss(velocity, batch.x0, batch.noise)
        found |= dict(zip(batch.indices, losses.unbind(), strict=True))
    return found


def mixed_shapes_vs_buckets(trial: Trial) -> Comparison:
    """Against buckets of exact shape with constant tokens."""
    setting = SHORT if trial.size == "short" else FULL
    gate = quality_gate(setting, separate)
    found = list(_measure(trial, setting, separate, bucket_steps)) if gate == "equal" else []
    ratio = variation(found, 0) / variation(found, 1) if found else math.inf
    return _comparison(
        "against batches of one exact shape with constant tokens (Open-Sora's buckets)",
        setting,
        found,
        gate,
        limit="1 where the buckets' batches are full: neither side pads, and the products are the same",
        target=f">= 1 with at most {VARIATION_TARGET} of the buckets' step-time variation",
        holds=bool(found) and speedup(found) >= 1 and ratio <= VARIATION_TARGET,
    )


def mixed_shapes_vs_padding(trial: Trial) -> Comparison:
    """Against padding to the longest sample of the batch."""
    setting = SHORT if trial.size == "short" else FULL
    gate = quality_gate(setting, padded)
    found = list(_measure(trial, setting, padded, padding_steps)) if gate == "equal" else []
    longest = max(setting.cost.tokens(shape) for shape in setting.shapes())
    mean = float(np.mean([setting.cost.tokens(shape) for shape in setting.shapes()]))
    return _comparison(
        "against batches padded to their longest sample",
        setting,
        found,
        gate,
        limit=f"{longest / mean:.1f} by tokens where every batch has a longest sample; more, where attention counts",
        target=f">= {PADDING_TARGET}",
        holds=bool(found) and speedup(found) >= PADDING_TARGET,
    )


def quality_gate(setting: Setting, peer: Pass) -> str:
    """``equal`` if each sample's loss is that of the peer, and the plan meets every sample of an epoch once."""
    shapes = setting.shapes()
    plan = Plan(shapes, setting.cost, seed=0, batch_size=setting.batch_size)
    batches, model = _step(plan, 0, shapes), _model(setting)
    with torch.no_grad():
        ours, theirs = losses_of(packed, model, batches), losses_of(peer, model, batches)
    scale = max(float(loss) for loss in theirs.values())
    odd = [f"loss of sample {i}" for i in ours if not (ours[i] - theirs[i]).abs() <= TOLERANCE * scale]
    steps = [plan.step(number) for number in range(math.ceil(len(shapes) / setting.batch_size))]
    met = [i for step in steps for i, place in zip(step.indices, step.positions, strict=True) if place < len(shapes)]
    odd += [] if sorted(met) == list(range(len(shapes))) else ["samples of an epoch"]
    return f"differs: {', '.join(odd)}" if odd else "equal"


def bucket_steps(setting: Setting, num_steps: int) -> list[list[tuple[int, ...]]]:
    """Indices of each step's one batch: every so manyth of an epoch's, by shape, so that shapes have their shares.

    What does not fill a bucket's last batch is dropped. The steps are shuffled over buckets.
    """
    batches = bucket_batches(setting)
    chosen = [batches[int((place + 0.5) * len(batches) / num_steps)] for place in range(num_steps)]
    return [[chosen[place]] for place in permutation(num_steps, 0, _BUCKETS)]


def bucket_batches(setting: Setting, *, by_flops: bool = False) -> list[tuple[int, ...]]:
    """An epoch's full batches, of constant tokens or of constant FLOPs, those of the cheapest shape first."""
    shapes, cost = setting.shapes(), setting.cost
    size_of: Callable[[Shape], float] = cost.flops if by_flops else cost.tokens
    budget = setting.batch_size * float(np.mean([size_of(shape) for shape in shapes]))
    buckets: dict[Shape, list[int]] = {}
    for index, shape in enumerate(shapes):
        buckets.setdefault(shape, []).append(index)
    batches = []
    for shape, members in sorted(buckets.items(), key=lambda bucket: (cost.tokens(bucket[0]), bucket[0])):
        size = max(1, round(budget / size_of(shape)))
        batches += [tuple(members[start : start + size]) for start in range(0, len(members) - size + 1, size)]
    return batches


def padding_steps(setting: Setting, num_steps: int) -> list[list[tuple[int, ...]]]:
    """Indices of each step's samples, one a batch of its own shape, in the order of the permutation."""
    order, size = permutation(setting.num_samples, 0, _CONTENT).tolist(), setting.batch_size
    return [[(order[(step * size + place) % len(order)],) for place in range(size)] for step in range(num_steps)]


def flops_variation(setting: Setting) -> dict[str, float]:
    """Standard deviation of a step's FLOPs over their mean, of our plan and of buckets of either kind."""
    shapes, cost = setting.shapes(), setting.cost
    plan = Plan(shapes, cost, seed=0, batch_size=setting.batch_size)
    steps: dict[str, list[Any]] = {
        "ours": [plan.step(number).indices for number in range(len(shapes) // setting.batch_size)]
    }
    steps |= {"buckets of constant tokens": bucket_batches(setting)}
    steps |= {"buckets of constant FLOPs": bucket_batches(setting, by_flops=True)}
    works = {name: [sum(cost.flops(shapes[i]) for i in each) for each in found] for name, found in steps.items()}
    return {name: float(np.std(each) / np.mean(each)) for name, each in works.items()}


def speedup(found: Sequence[Measured]) -> float:
    """Our tokens a second over the peer's."""
    return speed(found, 0) / speed(found, 1)


def speed(found: Sequence[Measured], side: int) -> float:
    """Useful tokens a CPU second."""
    return sum(each.tokens[side] for each in found) / sum(each.seconds[side] for each in found)


def variation(found: Sequence[Measured], side: int) -> float:
    """Standard deviation of a step's seconds over their mean."""
    seconds = np.array([each.seconds[side] for each in found])
    return float(seconds.std() / seconds.mean())


def _measure(trial: Trial, setting: Setting, peer: Pass, steps_of: Steps) -> Iterator[Measured]:
    """Steps of both in turns; who begins alternates, and the first step of each is not counted."""
    shapes, model, total = setting.shapes(), _model(setting), trial.num_runs * setting.pairs_per_run
    plan = Plan(shapes, setting.cost, seed=0, batch_size=setting.batch_size)
    theirs = steps_of(setting, total)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(-1, total):
            batches = (_step(plan, max(number, 0), shapes), [_films(each, shapes) for each in theirs[max(number, 0)]])
            seconds = {}
            for side in (0, 1) if number % 2 else (1, 0):
                seconds[side] = _seconds((packed, peer)[side], model, batches[side])
            if number >= 0:
                tokens = [sum(setting.cost.tokens(shapes[i]) for b in each for i in b.indices) for each in batches]
                yield Measured((tokens[0], tokens[1]), (seconds[0], seconds[1]))
                trial.progress(number + 1, total)
    finally:
        torch.set_num_threads(threads)


def _seconds(run: Pass, model: VideoDiT, batches: Sequence[Films]) -> float:
    """CPU seconds of forward and backward."""
    model.zero_grad()
    began = time.process_time()
    torch.stack(list(losses_of(run, model, batches).values())).mean().backward()
    return time.process_time() - began


def _step(plan: Plan, number: int, shapes: Sequence[Shape]) -> list[Films]:
    return [_films(each.indices, shapes) for each in plan.step(number).of_rank(0, 1)]


def _films(indices: Sequence[int], shapes: Sequence[Shape]) -> Films:
    """Samples of one shape, each a function of its index."""
    made = []
    for index in indices:
        draw = generator(_CONTENT, int(index))
        x0, noise = torch.randn(2, 3, *shapes[index], generator=draw)
        length = torch.randint(1, MAX_TEXT_TOKENS + 1, (1,), generator=draw)
        text = torch.randn(MAX_TEXT_TOKENS, 64, generator=draw)
        made.append((x0, noise, torch.rand((), generator=draw), text, torch.arange(MAX_TEXT_TOKENS) < length))
    x0, noise, t, text, mask = (torch.stack(part) for part in zip(*made, strict=True))
    # As a trainer does: no text is longer than the longest real one.
    longest = int(mask.sum(1).max())
    return Films(tuple(int(i) for i in indices), x0, noise, t, text[:, :longest], mask[:, :longest])


def _model(setting: Setting) -> VideoDiT:
    """A model in which nothing is zero, so that every path shows in the losses."""
    torch.manual_seed(0)
    model: VideoDiT = VideoDiT(**dataclasses.asdict(setting.config))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model


def _comparison(
    what: str, setting: Setting, found: Sequence[Measured], gate: str, *, limit: str, target: str, holds: bool
) -> Comparison:
    sides = {"ours": 0, "peer": 1} if found else {}
    interval = spread(speedup, found) if found else None
    return Comparison(
        what=f"useful tokens per CPU second of a training step on samples of mixed shapes, {what}",
        ours=speed(found, 0) if found else 0.0,
        peer=speed(found, 1) if found else 0.0,
        ratio=speedup(found) if found else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        limit=limit,
        target=target,
        holds=holds,
        runs=len(found),
        quality_gate=gate,
        details={
            "what_low_and_high_are": interval.kind if interval else "none",
            "model": f"depth {setting.depth}, width {setting.config.width}, fp32, one thread, forward and backward",
            "shapes": f"{len(set(setting.shapes()))}, of {_range(setting)} tokens",
            "variation_of_ours_over_the_peers": variation(found, 0) / variation(found, 1) if found else None,
            "FLOPs of a step": {name: {"std / mean": value} for name, value in flops_variation(setting).items()},
            "steps": {name: _steps(found, side) for name, side in sides.items()},
        },
    )


def _range(setting: Setting) -> str:
    tokens = [setting.cost.tokens(shape) for shape in setting.shapes()]
    return f"{min(tokens)} to {max(tokens)}, {np.mean(tokens):.0f} on average"


def _steps(found: Sequence[Measured], side: int) -> dict[str, float]:
    seconds = np.array([each.seconds[side] for each in found])
    return {
        "mean CPU s": float(seconds.mean()),
        "std / mean": variation(found, side),
        "max / mean": float(seconds.max() / seconds.mean()),
        "mean tokens": float(np.mean([each.tokens[side] for each in found])),
    }
