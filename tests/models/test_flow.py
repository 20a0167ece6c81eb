"""The rectified-flow path: its ends, its slope, and the loss."""

import pytest
import torch

from telecine_models.flow import flow_matching_loss, interpolate, velocity

X0, NOISE = torch.randn(2, 4, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_time_zero_is_data_and_time_one_is_noise() -> None:
    assert torch.equal(interpolate(X0, NOISE, torch.zeros(4)), X0)
    assert torch.equal(interpolate(X0, NOISE, torch.ones(4)), NOISE)


def test_every_sample_has_a_time_of_its_own() -> None:
    mixed = interpolate(X0, NOISE, torch.tensor([0.0, 1.0, 0.5, 0.0]))
    assert torch.equal(mixed[0], X0[0])
    assert torch.equal(mixed[1], NOISE[1])
    torch.testing.assert_close(mixed[2], (X0[2] + NOISE[2]) / 2)


def test_velocity_is_the_slope_of_the_path() -> None:
    rise = interpolate(X0, NOISE, torch.full((4,), 0.75)) - interpolate(X0, NOISE, torch.full((4,), 0.25))
    torch.testing.assert_close(rise / 0.5, velocity(X0, NOISE))


@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_data_and_noise_follow_from_a_point_and_its_velocity(time: float) -> None:
    x, v = interpolate(X0, NOISE, torch.full((4,), time)), velocity(X0, NOISE)
    torch.testing.assert_close(x - time * v, X0)
    torch.testing.assert_close(x + (1 - time) * v, NOISE)


def test_loss_is_zero_for_the_true_velocity_and_the_squared_error_per_sample_otherwise() -> None:
    assert torch.equal(flow_matching_loss(velocity(X0, NOISE), X0, NOISE), torch.zeros(4))
    offsets = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(4, 1, 1, 1, 1)
    torch.testing.assert_close(
        flow_matching_loss(velocity(X0, NOISE) + offsets, X0, NOISE), torch.tensor([0.0, 1.0, 4.0, 9.0])
    )


def test_loss_is_computed_in_float32_whatever_the_model_computes_in() -> None:
    loss = flow_matching_loss(*(tensor.to(torch.bfloat16) for tensor in (NOISE, X0, NOISE)))
    assert loss.dtype == torch.float32


def test_shapes_that_would_only_broadcast_are_named(unchecked: None) -> None:
    x0 = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"interpolate: noise and t must be shaped \[2, 3, 4\] and \[2\], got .*\[1\]"):
        interpolate(x0, x0, torch.zeros(1))
    with pytest.raises(ValueError, match=r"x0 and noise must be shaped \[1, 3, 4\], got \[2, 3, 4\]"):
        flow_matching_loss(x0[:1], x0, x0)


def test_the_last_flow_times_are_told_apart_in_low_precision() -> None:
    x0, noise = torch.full((1, 1), 300.0, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.bfloat16)
    assert float(interpolate(x0, noise, torch.tensor([0.9985]))) > 0.4
    x0, noise = torch.full((1, 1), 100.3, dtype=torch.bfloat16), torch.full((1, 1), 0.77, dtype=torch.bfloat16)
    assert float(flow_matching_loss(noise.float() - x0.float(), x0, noise)) == 0
