"""Held-out evaluation: is the trained model better than no training and than the best constant answer?

All contestants are measured on the same clips with the same flow times and noise, so their per-clip differences are
paired; the uncertainty that matters is which clips were held out, so clips are what the bootstrap resamples.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from telecine_components.training.loader import Batch, Loader
from telecine_components.training.losses import EncodeText, velocity_loss
from telecine_components.training.randomness import generator, stratified_times
from telecine_models.denoiser import evaluating
from telecine_models.flow import flow_matching_loss

_EVAL_STREAM = 3
_NUMBERS_AT_ONCE = 1_000_000

Measure = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Batch], torch.Tensor]
"""(x0 [K, C, F, H, W], noise [K, C, F, H, W], t [K], the batch of the one sample that x0 repeats) -> loss [K]."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def sample_losses(
    measure: Measure, loader: Loader, *, num_draws: int, seed: int, limit: int | None = None
) -> np.ndarray:
    """Mean loss [num_samples] of each sample over its ``num_draws`` fixed (t, noise) draws, t stratified."""
    losses = []
    for index in range(min(len(loader), limit or len(loader))):
        random = generator(seed, _EVAL_STREAM, index)
        batch = loader.gather([index])
        t = stratified_times(num_draws, random)
        noise = torch.randn((num_draws, *batch.x0.shape[1:]), generator=random)
        x0 = batch.x0.expand(num_draws, -1, -1, -1, -1)
        losses.append(measure(x0, noise, t, batch).mean().item())
    return np.array(losses)


def model_measure(model: torch.nn.Module, encode_text: EncodeText) -> Measure:
    """Loss of a model's velocity, as it is in evaluation, given all that a sample has, on the model's device."""
    device = next(model.parameters()).device

    def measure(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, sample: Batch) -> torch.Tensor:
        beside = sample.map(lambda tensor: tensor.to(device).expand(len(t), *tensor.shape[1:])).beside
        embeddings, mask = encode_text(sample.captions * len(t))
        text = embeddings.to(device), mask.to(device)
        with torch.no_grad(), evaluating(model):
            return velocity_loss(model, x0.to(device), noise.to(device), t.to(device), text, **beside)

    return measure


def constant_measure(mean_x0: torch.Tensor) -> Measure:
    """Loss of the best constant prediction: v = noise - x0 has the expectation -mean(x0), of :func:`mean_x0`."""

    def measure(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, sample: Batch) -> torch.Tensor:
        return flow_matching_loss((-mean_x0).expand_as(x0), x0, noise)

    return measure


def mean_x0(loader: Loader) -> torch.Tensor:
    """Mean of a split's samples in model range, float32: per pixel [C, F, H, W], or per channel where shapes differ.

    Samples that hold something else than numbers are left out, as training leaves them out.
    """
    one_shape = len({sample.x0_shape for sample in loader.samples}) == 1
    total, count = torch.zeros(1, dtype=torch.float64), 0
    for index in range(len(loader)):
        x0 = loader.gather([index]).x0[0].to(torch.float64)
        if x0.isfinite().all():
            total = total + (x0 if one_shape else x0.mean((1, 2, 3), keepdim=True))
            count += 1
    return (total / max(1, count)).to(torch.float32)


def per_clip(losses: np.ndarray, clip_ids: Sequence[str]) -> dict[str, float]:
    """Mean of ``losses`` [num_samples] by clip, in the order of clip ids."""
    of_clips: dict[str, list[float]] = {}
    for loss, clip in zip(losses, clip_ids, strict=True):
        of_clips.setdefault(clip, []).append(loss)
    return {clip: float(np.mean(of_clips[clip])) for clip in sorted(of_clips)}


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int, num_resamples: int = 10_000
) -> Interval:
    """Mean of ``theirs - ours`` over clips with its percentile bootstrap interval; above zero, ours is better."""
    differences = np.asarray(theirs, dtype=np.float64) - np.asarray(ours, dtype=np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    # Some at a time: those of ten thousand clips at once take gigabytes, when all the training is done.
    rows = max(1, _NUMBERS_AT_ONCE // len(differences))
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, rows):
        part = means[start : start + rows]
        part[:] = differences[random.integers(0, len(differences), size=(len(part), len(differences)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(differences.mean()), float(low), float(high))
