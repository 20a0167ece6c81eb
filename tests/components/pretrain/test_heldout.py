"""Held-out arithmetic against answers known without running it."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from telecine import settings
from telecine_components.pretrain.train import heldout
from telecine_components.training.loader import Batch, Loader, read_index
from telecine_components.training.losses import velocity_loss
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT


@pytest.fixture
def loader(deployment: settings.Settings, make_dataset: Callable[..., Path]) -> Loader:
    samples = read_index(make_dataset(deployment) / "index.parquet")
    return Loader(samples, lambda shard: deployment.home / "store" / shard, seed=0)


def test_the_mean_predictor_costs_the_noise_plus_the_variance_of_the_pixels(loader: Loader) -> None:
    pixels = torch.cat([loader.gather([index]).x0 for index in range(len(loader))])
    expected = 1.0 + pixels.var(dim=0, correction=0).mean().item()
    measure = heldout.constant_measure(heldout.mean_x0(loader))
    losses = heldout.sample_losses(measure, loader, num_draws=200, seed=0)
    assert losses.mean() == pytest.approx(expected, rel=0.02)


def test_the_mean_is_the_mean_over_samples_of_every_pixel(loader: Loader) -> None:
    pixels = torch.cat([loader.gather([index]).x0 for index in range(len(loader))])
    torch.testing.assert_close(heldout.mean_x0(loader), pixels.mean(dim=0))


def test_every_contestant_meets_the_same_draws(loader: Loader) -> None:
    met: list[list[torch.Tensor]] = [[], []]

    def spy(into: list[torch.Tensor]) -> heldout.Measure:
        def measure(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, sample: Batch) -> torch.Tensor:
            into.extend((noise, t))
            return torch.zeros(len(t))

        return measure

    for into in met:
        heldout.sample_losses(spy(into), loader, num_draws=3, seed=5, limit=4)
    assert len(met[0]) == 8
    assert all(torch.equal(one, other) for one, other in zip(*met, strict=True))
    assert (met[0][1].sort().values * 3).floor().tolist() == [0, 1, 2]


TEXT = CachedText(HashTextEncoder(text_dim=8))


def small_dit(num_experts: int = 0) -> VideoDiT:
    torch.manual_seed(0)
    built = VideoDiT(patch_size=(1, 4, 4), num_layers=2, num_heads=2, head_dim=16, text_dim=8, num_experts=num_experts)
    with torch.no_grad():
        for parameter in built.parameters():  # a fresh model's gates are zero, and nothing flows through its blocks
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def test_a_model_is_measured_where_it_is() -> None:
    """The meta device stands for a GPU: tensors of the CPU cannot meet those of either."""
    noise, t, sample = torch.randn(4, 3, 2, 8, 8), torch.rand(4), Batch(torch.zeros(1, 3, 2, 8, 8), ["a red square"])
    measure = heldout.model_measure(small_dit().to("meta"), TEXT)
    loss = measure(sample.x0.expand(4, -1, -1, -1, -1), noise, t, sample)
    assert loss.shape == (4,) and loss.device.type == "meta"


def test_experts_are_measured_with_the_routing_that_sampling_has() -> None:
    noise, t, sample = torch.randn(4, 3, 2, 8, 8), torch.rand(4), Batch(torch.zeros(1, 3, 2, 8, 8), ["a red square"])
    model = small_dit(num_experts=4)
    x0 = sample.x0.expand(4, -1, -1, -1, -1)
    with torch.no_grad():
        in_training, evaluated = (
            velocity_loss(model.train(mode), x0, noise, t, TEXT(["a red square"] * 4)) for mode in (True, False)
        )
    measured = heldout.model_measure(model.train(), TEXT)(x0, noise, t, sample)
    assert torch.equal(measured, evaluated) and not torch.allclose(measured, in_training)
    assert all(layer.training for layer in model.modules())


def test_a_clip_counts_once_however_many_samples_it_has() -> None:
    assert heldout.per_clip(np.array([1.0, 3.0, 10.0]), ["b", "b", "a"]) == {"a": 10.0, "b": 2.0}


def test_the_interval_of_a_constant_difference_has_no_width() -> None:
    interval = heldout.paired_difference([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], seed=0)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_the_interval_agrees_with_the_normal_one_on_many_clips() -> None:
    ours = np.random.default_rng(0).normal(1.0, 0.5, size=400)
    theirs = ours + np.random.default_rng(1).normal(0.2, 0.1, size=400)
    interval = heldout.paired_difference(ours.tolist(), theirs.tolist(), seed=0)
    half_width = 1.96 * (theirs - ours).std() / 20
    assert interval.low == pytest.approx(interval.mean - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(interval.mean + half_width, abs=0.1 * half_width)
    assert interval == heldout.paired_difference(ours.tolist(), theirs.tolist(), seed=0)


def test_the_interval_of_many_clips_is_drawn_in_little_memory() -> None:
    theirs = np.random.default_rng(1).normal(0.2, 0.1, size=4001)
    tracemalloc.start()
    interval = heldout.paired_difference([0.0] * len(theirs), theirs.tolist(), seed=0, num_resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    at_once = np.random.Generator(np.random.PCG64(0)).integers(0, len(theirs), size=(1000, len(theirs)))
    low, high = np.quantile(theirs[at_once].mean(axis=1), (0.025, 0.975))
    assert (interval.low, interval.high) == (low, high)
    assert peak < at_once.nbytes, "of all resamples at once"
