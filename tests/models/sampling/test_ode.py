"""ODE solvers against equations with known answers."""

import math

import pytest
import torch
from torch import Tensor

from telecine_models.sampling import Method, linear_times, sample_ode, solve_ode

NOISE = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def constant(x: Tensor, t: Tensor) -> Tensor:
    return torch.full_like(x, 3.0)


def linear(x: Tensor, t: Tensor) -> Tensor:
    return 2 * x


def accelerating(x: Tensor, t: Tensor) -> Tensor:
    return x * (1 + t)[:, None]


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_straight_path_is_solved_exactly_in_any_number_of_steps(method: Method, num_steps: int) -> None:
    torch.testing.assert_close(sample_ode(constant, NOISE, num_steps, method), NOISE - 3)


def test_linear_equation_gives_the_closed_form_of_each_method() -> None:
    # dx/dt = 2x backwards over n steps: each multiplies by 1 - h (Euler) or 1 - h + h^2/2 (Heun), h = 2/n.
    torch.testing.assert_close(sample_ode(linear, NOISE, 8), NOISE * (1 - 0.25) ** 8)
    torch.testing.assert_close(sample_ode(linear, NOISE, 8, "heun"), NOISE * (1 - 0.25 + 0.03125) ** 8)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_method(method: Method, order: int) -> None:
    exact = NOISE * math.exp(-1.5)
    coarse, fine = ((sample_ode(accelerating, NOISE, n, method) - exact).abs().max() for n in (16, 32))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_gaussian_data_is_recovered_from_noise() -> None:
    # For data N(0, s^2) the optimal velocity is linear in x, and the flow maps noise to s * noise.
    scale = 0.3

    def optimal(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        return x * (t - (1 - t) * scale**2) / ((1 - t) ** 2 * scale**2 + t**2)

    torch.testing.assert_close(sample_ode(optimal, NOISE, 200, "heun"), scale * NOISE, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "times"), [("euler", [1.0, 0.75, 0.5, 0.25]), ("heun", [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0])]
)
def test_time_runs_from_noise_to_data(method: Method, times: list[float]) -> None:
    seen: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (4,)
        seen.append(float(t[0]))
        return x

    sample_ode(denoise, NOISE, 4, method)
    assert seen == times


def test_small_updates_survive_a_model_in_low_precision() -> None:
    start = torch.full((1, 1), 100.0, dtype=torch.bfloat16)
    end = sample_ode(lambda x, t: torch.full_like(x, 10.0), start, 100)
    assert end.dtype == torch.bfloat16
    assert float(end) == pytest.approx(90, abs=0.5)


def test_a_schedule_of_its_own_is_followed_and_linear_times_are_sample_ode() -> None:
    assert torch.equal(solve_ode(linear, NOISE, linear_times(8), "heun"), sample_ode(linear, NOISE, 8, "heun"))
    # Each step of dx/dt = 2x multiplies by 1 - 2 h, with a length h of its own.
    torch.testing.assert_close(solve_ode(linear, NOISE, torch.tensor([1.0, 0.7, 0.0])), NOISE * (1 - 0.6) * (1 - 1.4))


def test_a_solver_run_backwards_returns_to_the_noise() -> None:
    there = solve_ode(accelerating, NOISE, linear_times(64), "heun")
    torch.testing.assert_close(
        solve_ode(accelerating, there, linear_times(64).flip(0), "heun"), NOISE, rtol=1e-3, atol=1e-5
    )


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        sample_ode(linear, NOISE, 0)


def test_an_unknown_method_is_named(unchecked_signatures: None) -> None:
    for solve in (lambda method: sample_ode(linear, NOISE, 4, method), lambda m: solve_ode(linear, NOISE, NOISE[0], m)):
        with pytest.raises(ValueError, match=r"method must be one of \['euler', 'heun'\], got 'midpoint'"):
            solve("midpoint")
