"""What a whole walk leaves behind, for data whose velocity is known exactly: Gaussians and a mixture of two.

The stochastic equation has the marginals of the flow only in the limit of small steps. So a walk is held against the
exact recursion of its own steps, and the recursion against published values; CPS has other marginals and is not held
against the data.
"""

import math

import pytest
import torch
from torch import Tensor

from telecine_models.sampling import Dynamics, Transition, linear_times, sample_sde, shifted_times, solve_ode

SDE, CPS = Dynamics("sde", 0.7), Dynamics("cps", 0.8)
N = 20_000


class Uncorrected(Dynamics):
    """The classic defect: noise is added, the score does not take it out again."""

    def transition(self, x: Tensor, velocity: Tensor, t: Tensor, t_next: Tensor) -> Transition:
        euler = x + velocity * (t_next - t).view(-1, 1)
        return Transition(euler, super().transition(x, velocity, t, t_next).std, simplified=False)


class Gaussian:
    """Exact velocity for data N(mean, std^2); affine in x."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        t, variance = t[:, None], self.std**2
        slope = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
        return slope * (x - (1 - t) * self.mean) - self.mean


def mixture(x: Tensor, t: Tensor) -> Tensor:
    """Exact velocity for data of modes -2 and 2, weights 0.3 and 0.7, standard deviation 0.3."""
    means, weights = torch.tensor([-2.0, 2.0]), torch.tensor([0.3, 0.7])
    variance = (1 - t[:, None]) ** 2 * 0.09 + t[:, None] ** 2
    share = (weights.log() - (x - (1 - t[:, None]) * means).square() / (2 * variance)).softmax(1)
    return (share * torch.cat([Gaussian(float(mean), 0.3)(x, t) for mean in means], 1)).sum(1, keepdim=True)


def moments_after(times: Tensor, data: Gaussian, dynamics: Dynamics | None) -> tuple[float, float]:
    """Mean and standard deviation of the last point in closed form: every step is affine in x, plus its noise."""
    if dynamics is None:
        start, end = solve_ode(data, torch.tensor([[0.0], [1.0]]), times)[:, 0].tolist()
        return start, end - start
    t, t_next, zero = times[:-1], times[1:], torch.zeros(len(times) - 1, 1)
    steps = [dynamics.transition(x, data(x, t), t, t_next) for x in (zero, zero + 1)]
    offsets, slopes = steps[0].mean[:, 0], (steps[1].mean - steps[0].mean)[:, 0]
    mean, variance = 0.0, 1.0
    for offset, slope, std in zip(offsets.tolist(), slopes.tolist(), steps[0].std.tolist(), strict=True):
        mean, variance = offset + slope * mean, slope**2 * variance + std**2
    return mean, math.sqrt(variance)


def walk(denoise: object, dynamics: Dynamics, num_steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(N, 1, generator=generator)
    return sample_sde(denoise, start, linear_times(num_steps), dynamics, generator).x_next[-1][:, 0]


# Gaussian data


@pytest.mark.parametrize(
    ("std", "num_steps", "ode", "sde", "cps"),
    [
        (1.0, 10, 0.8790, 0.9650, 0.7237),
        (1.0, 40, 0.9684, 0.9995, 0.7817),
        (0.5, 10, 0.4308, 0.4795, 0.3518),
        (0.5, 40, 0.4818, 0.4974, 0.3861),
        (0.1, 10, 0.0617, 0.0920, 0.0557),
        (0.1, 40, 0.0894, 0.0954, 0.0718),
        (0.5, 1000, 0.4993, 0.5009, 0.4027),
    ],
)
def test_moments_of_gaussian_data_follow_the_closed_recursion(
    std: float, num_steps: int, ode: float, sde: float, cps: float
) -> None:
    for dynamics, expected in ((None, ode), (SDE, sde), (CPS, cps)):
        mean, spread = moments_after(linear_times(num_steps), Gaussian(1.0, std), dynamics)
        assert mean == pytest.approx(1, abs=1e-4)
        assert spread == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("std", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("dynamics", [SDE, CPS], ids=["sde", "cps"])
def test_a_walk_has_the_moments_of_its_recursion(dynamics: Dynamics, std: float) -> None:
    mean, spread = moments_after(linear_times(10), Gaussian(1.0, std), dynamics)
    samples = walk(Gaussian(1.0, std), dynamics, 10)
    assert float(samples.std()) == pytest.approx(spread, abs=4 * spread / math.sqrt(2 * N))
    assert float(samples.mean()) == pytest.approx(mean, abs=4 * spread / math.sqrt(N))


@pytest.mark.parametrize("std", [1.0, 0.5, 0.1])
def test_the_sde_converges_to_the_data_as_steps_shrink(std: float) -> None:
    # Not at every doubling: the spread is too small at first, and passes the data's on its way.
    errors = [abs(moments_after(linear_times(n), Gaussian(1.0, std), SDE)[1] - std) for n in (10, 160, 2560)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("num_steps", [10, 40])
def test_without_the_score_the_noise_stays(num_steps: int) -> None:
    _, spread = moments_after(linear_times(num_steps), Gaussian(1.0, 0.5), Uncorrected("sde", 0.7))
    assert spread > 0.6


# A mixture of two modes


def distance_to_mixture(samples: Tensor) -> float:
    """Wasserstein-1 distance to as many true samples."""
    generator = torch.Generator().manual_seed(2)
    signs = torch.where(torch.rand(N, generator=generator) < 0.7, 2.0, -2.0)
    truth = signs + 0.3 * torch.randn(N, generator=generator)
    return float((samples.sort().values - truth.sort().values).abs().mean())


@pytest.mark.parametrize(("num_steps", "limit"), [(10, 0.08), (40, 0.05)])
def test_the_sde_samples_a_mixture_and_a_walk_without_the_score_does_not(num_steps: int, limit: float) -> None:
    samples = walk(mixture, SDE, num_steps)
    assert distance_to_mixture(samples) < limit
    assert float((samples > 0).float().mean()) == pytest.approx(0.7, abs=0.02)
    broken = walk(mixture, Uncorrected("sde", 0.7), num_steps)
    assert distance_to_mixture(broken) > 0.3
    assert float((broken > 0).float().mean()) < 0.65


# Noise that is left in nearly deterministic data


@pytest.mark.parametrize(("num_steps", "left"), [(10, 0.198), (40, 0.045)])
def test_on_a_shifted_schedule_the_sde_leaves_noise_that_cps_does_not(num_steps: int, left: float) -> None:
    times, data = shifted_times(num_steps, 3.0, last=0.0089286), Gaussian(1.0, 0.02)
    ode, sde, cps = (moments_after(times, data, dynamics)[1] for dynamics in (None, SDE, CPS))
    assert sde == pytest.approx(left, abs=5e-4)
    assert ode < 0.011
    assert cps < 0.011
    if num_steps == 10:
        assert (ode, cps) == pytest.approx((0.008, 0.008), abs=5e-4)
