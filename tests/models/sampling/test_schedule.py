"""The times that a sampler visits."""

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from telecine_models.sampling import linear_times, shifted_times


def test_linear_times_run_from_noise_to_data_in_equal_steps() -> None:
    assert linear_times(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    torch.testing.assert_close(shifted_times(7, shift=1.0), linear_times(7))


def test_a_shift_moves_the_times_towards_noise_by_its_formula() -> None:
    assert shifted_times(4, shift=3.0).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert (shifted_times(9, shift=3.0)[1:-1] > linear_times(9)[1:-1]).all()
    torch.testing.assert_close(1 - shifted_times(9, shift=1 / 3).flip(0), shifted_times(9, shift=3.0))


@pytest.mark.parametrize("num_steps", [10, 40])
def test_times_of_stable_diffusion_3_are_those_of_its_scheduler(num_steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(shifted_times(num_steps, shift=3.0, last=0.0089286), scheduler.sigmas)


@pytest.mark.parametrize("last", [None, 0.01])
@pytest.mark.parametrize("shift", [0.08, 0.33, 1.18, 3.0, 17.3])
def test_times_begin_at_one_exactly_end_at_zero_and_fall(shift: float, last: float | None) -> None:
    for num_steps in (1, 2, 13):
        times = shifted_times(num_steps, shift, last)
        assert times.dtype == torch.float32
        assert (float(times[0]), float(times[-1]), len(times)) == (1.0, 0.0, num_steps + 1)
        assert (times.diff() < 0).all()


def test_a_wrong_setting_is_named() -> None:
    for times in (linear_times, lambda n: shifted_times(n, 3.0)):
        with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
            times(0)
    for shift in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="shift must be positive and finite, got"):
            shifted_times(4, shift)
    for last in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="last must lie between 0 and 1, got"):
            shifted_times(4, 3.0, last)
