"""The flow-matching objective (arXiv:2210.02747, 2209.03003) with stateless randomness.

t=0 is data and t=1 is noise; x_t = (1-t) x_0 + t noise; the model predicts v = noise - x_0. What is drawn for a sample
is a function of its position in the run, so it is the same on any rank, in any micro-batch and in a resumed run.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from telecine_components.training.loader import Batch, WeightedBatch
from telecine_components.training.randomness import generator, permutation
from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.moe.routing import Routing
from telecine_models.video_dit.config import KINDS

_NOISE_STREAM, _TIME_STREAM, _CONDITION_STREAM = 2, 4, 7

EncodeText = Callable[[Sequence[str]], tuple[torch.Tensor, torch.Tensor]]
"""Captions to (embeddings [B, L, D_text] float32, mask [B, L] bool)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What is minimised: ``per_sample`` [B] losses, and what each mixture of experts did on the way."""

    per_sample: torch.Tensor
    routings: Sequence[Routing] = ()

    def total(self) -> torch.Tensor:
        """Scalar sum over the samples; the mixtures' own losses, each a mean over tokens, count once a sample."""
        own = [routing.loss for routing in self.routings]
        return self.per_sample.sum() + len(self.per_sample) * (torch.stack(own).sum() if own else 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """Flow matching given captions: a pure function of (weights, batch, seed).

    Attributes:
        caption_dropout_ratio: share of captions that become "" (classifier-free guidance, arXiv:2207.12598).
        num_strata: flow times of so many samples that follow each other lie one in each of as many equal strata: each
            alone is uniform, and together they cover the interval, which lowers the variance of a step's loss.
        has_experts: whether the model is asked for its routings.
        condition_dropout_ratio: share of samples from which a kind of condition is taken, each kind by itself, so that
            a model learns every combination.
        condition_positions: position from which samples are given a kind of condition; a kind that is left out is
            given to all.
    """

    encode_text: EncodeText
    caption_dropout_ratio: float
    seed: int
    num_strata: int
    has_experts: bool = False
    condition_dropout_ratio: float = 0.0
    condition_positions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __call__(self, model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
        """Losses of batches whose positions are known, one after the other; several of them run as one pack."""
        noised = [self._noised(batch) for batch in batches]
        if len(batches) == 1 and not self.has_experts:
            return Objective(noised[0].loss(model(*noised[0].arguments, **noised[0].beside)))
        if len(batches) == 1:
            predicted, routings = model(*noised[0].arguments, **noised[0].beside, return_routings=True)
            return Objective(noised[0].loss(predicted), routings)
        columns = zip(*(each.arguments for each in noised), strict=True)
        dit: Any = getattr(model, "module", model)
        packed, routings = dit.forward_packed(*map(list, columns))
        losses = [each.loss(predicted) for each, predicted in zip(noised, packed, strict=True)]
        return Objective(torch.cat(losses), routings)

    def _noised(self, batch: Batch) -> "Noised":
        draws = [self.draw(position, batch.x0.shape[1:]) for position in batch.positions]
        t = torch.tensor([each.t for each in draws], device=batch.x0.device)
        noise = torch.stack([each.noise for each in draws]).to(batch.x0.device)
        captions = ["" if each.drops_caption else text for each, text in zip(draws, batch.captions, strict=True)]
        embeddings, mask = (tensor.to(batch.x0.device) for tensor in self.encode_text(captions))
        return Noised(batch.x0, noise, t, embeddings, mask, self._told(batch).beside)

    def _told(self, batch: Batch) -> Batch:
        """The batch with those conditions that its samples are given."""
        if batch.conditions is None:
            return batch
        given = [self.kinds(position) for position in batch.positions]
        kept = {kind: torch.tensor([kind in each for each in given]) for kind in KINDS}
        return dataclasses.replace(batch, conditions=batch.conditions.keep(kept))

    def kinds(self, position: int) -> frozenset[str]:
        """Kinds of conditions that the sample at a position is given, of those that it has."""
        chances = torch.rand(len(KINDS), generator=generator(self.seed, _CONDITION_STREAM, position)).tolist()
        return frozenset(
            kind
            for kind, chance in zip(KINDS, chances, strict=True)
            if chance >= self.condition_dropout_ratio and position >= self.condition_positions.get(kind, 0)
        )

    def draw(self, position: int, shape: Sequence[int]) -> "Draw":
        """What the sample at a position meets."""
        random = generator(self.seed, _NOISE_STREAM, position)
        window, place = divmod(position, self.num_strata)
        stratum = int(_strata(self.num_strata, self.seed, window)[place])
        within, chance = torch.rand(2, generator=random).tolist()
        noise = torch.randn(tuple(shape), generator=random)
        return Draw((stratum + within) / self.num_strata, noise, chance < self.caption_dropout_ratio)


@dataclasses.dataclass(frozen=True, eq=False)
class Noised:
    """A batch ``x0`` [B, C, F, H, W] with what is drawn for it: ``noise``, flow times ``t`` [B], its text, the rest."""

    x0: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    embeddings: torch.Tensor
    mask: torch.Tensor
    beside: Mapping[str, Any]

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        """What a denoiser is called with."""
        return interpolate(self.x0, self.noise, self.t), self.t, self.embeddings, self.mask

    def loss(self, predicted: torch.Tensor) -> torch.Tensor:
        """Loss [B] of a predicted velocity."""
        return flow_matching_loss(predicted, self.x0, self.noise)


@functools.lru_cache(maxsize=8)
def _strata(num_strata: int, seed: int, window: int) -> np.ndarray:
    return permutation(num_strata, seed, _TIME_STREAM, window)


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """Flow time in (0, 1), noise [C, F, H, W], and whether the caption is dropped."""

    t: float
    noise: torch.Tensor
    drops_caption: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardWeighted:
    """Flow-RWR (arXiv:2501.13918, Eq. 9): flow matching in which each sample counts by its reward.

    ``L = E[w(x_0, y) |v - v_theta(x_t, t, y)|^2]``. With the weights of :func:`reward_weights` its optimum is the
    velocity of the data's distribution tilted by exp(reward / temperature), for each caption, or pair, by itself.
    """

    flow: FlowMatching

    def __call__(self, model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
        """Weighted losses of :class:`WeightedBatch` batches."""
        plain = self.flow(model, batches)
        weights = torch.cat([batch.weights for batch in batches if isinstance(batch, WeightedBatch)])
        return Objective(weights.to(plain.per_sample.device) * plain.per_sample, plain.routings)


def reward_weights(rewards: Sequence[float], groups: Sequence[str], temperature: float) -> list[float]:
    """Weight of each sample: exp(reward / temperature), divided by its group's mean so that this is one.

    A group is what rewards were given relative to: a caption's films, or the two of a pair. Only differences within it
    count, so an easy caption weighs no more than a hard one, a constant added to the rewards changes nothing, and the
    learning rate means what it means in plain flow matching. VideoAlign's Eq. 9 is the case of temperature one without
    the division.
    """
    value = torch.tensor(rewards, dtype=torch.float64) / temperature
    weights = torch.empty_like(value)
    for group in set(groups):
        members = torch.tensor([i for i, other in enumerate(groups) if other == group])
        weights[members] = torch.softmax(value[members], dim=0) * len(members)
    return [float(weight) for weight in weights]


def velocity_loss(
    model: torch.nn.Module,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    **beside: Any,
) -> torch.Tensor:
    """Loss [B] of the model's velocity at flow times ``t`` [B], for ``x0`` and ``noise`` [B, C, F, H, W].

    Args:
        beside: conditions and actions, by the names that a denoiser has for them.
    """
    embeddings, mask = text
    predicted = model(interpolate(x0, noise, t), t, embeddings, mask, **beside)
    return flow_matching_loss(predicted, x0, noise)
