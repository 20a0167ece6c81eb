"""The flow-matching objective (arXiv:2210.02747, 2209.03003) with stateless randomness.

t=0 is data and t=1 is noise; x_t = (1-t) x_0 + t noise; the model predicts v = noise - x_0.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch

from telecine_components.training.loader import Batch, WeightedBatch
from telecine_components.training.randomness import generator, stratified_times
from telecine_models.flow import flow_matching_loss, interpolate

_NOISE_STREAM = 2

EncodeText = Callable[[Sequence[str]], tuple[torch.Tensor, torch.Tensor]]
"""Captions to (embeddings [B, L, D_text] float32, mask [B, L] bool)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """Loss of one step: a pure function of (weights, batch, seed, step)."""

    encode_text: EncodeText
    caption_dropout_ratio: float
    seed: int

    def __call__(self, model: torch.nn.Module, batch: Batch, step: int) -> torch.Tensor:
        """Scalar mean loss. A dropped caption becomes "" (classifier-free guidance, arXiv:2207.12598)."""
        return self.per_sample(model, batch, step).mean()

    def per_sample(self, model: torch.nn.Module, batch: Batch, step: int) -> torch.Tensor:
        """Loss [B] of each sample, before the mean."""
        random = generator(self.seed, _NOISE_STREAM, step)
        num_samples = len(batch.captions)
        t = stratified_times(num_samples, random)
        noise = torch.randn(batch.x0.shape, generator=random)
        dropped = torch.rand(num_samples, generator=random) < self.caption_dropout_ratio
        captions = ["" if drop else text for text, drop in zip(batch.captions, dropped.tolist(), strict=True)]
        return velocity_loss(model, batch.x0, noise, t, self.encode_text(captions))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardWeighted:
    """Flow-RWR (arXiv:2501.13918, Eq. 9): flow matching in which each sample counts by its reward.

    ``L = E[w(x_0, y) |v - v_theta(x_t, t, y)|^2]``. With the weights of :func:`reward_weights` its optimum is the
    velocity of the data's distribution tilted by exp(reward / temperature), for each caption, or pair, by itself.
    """

    flow: FlowMatching

    def __call__(self, model: torch.nn.Module, batch: Batch, step: int) -> torch.Tensor:
        """Scalar weighted loss of a :class:`WeightedBatch`."""
        assert isinstance(batch, WeightedBatch)
        return (batch.weights * self.flow.per_sample(model, batch, step)).mean()


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
) -> torch.Tensor:
    """Loss [B] of the model's velocity at flow times ``t`` [B], for ``x0`` and ``noise`` [B, C, F, H, W]."""
    embeddings, mask = text
    predicted = model(interpolate(x0, noise, t), t, embeddings, mask)
    return flow_matching_loss(predicted, x0, noise)
