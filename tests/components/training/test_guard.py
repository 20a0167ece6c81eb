"""What is a bad step, what is none, and that a resumed run judges as the undisturbed one."""

import json
import math
from typing import Any

import numpy as np
import pytest

from telecine_components.training.guard import Guard, GuardConfig, Verdict, robust_z

CONFIG = GuardConfig(window=20, spike_z=6.0, max_rollbacks=2, calm_steps=10)


def losses(num: int, seed: int = 0) -> list[float]:
    """A loss that falls and is noisy, as a training's is."""
    noise = np.random.default_rng(seed).normal(size=num)
    return [float(value) for value in (1 + np.exp(-np.arange(num) / 50)) * (1 + 0.05 * noise)]


def fed(config: GuardConfig = CONFIG, num: int = 40) -> Guard:
    guard = Guard(config)
    assert [guard.see(step, loss, 1.0) for step, loss in enumerate(losses(num))] == [None] * num
    return guard


@pytest.mark.parametrize(
    ("loss", "grad_norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -math.inf), (math.nan, math.nan)]
)
def test_what_is_no_number_is_bad_from_the_first_step_on(loss: float, grad_norm: float) -> None:
    verdict = Guard(CONFIG).see(0, loss, grad_norm)
    assert verdict == Verdict(0, "not_finite", f"step 0: loss {loss:g}, gradient norm {grad_norm:g}")


def test_a_spike_is_told_by_how_far_it_is_off() -> None:
    verdict = fed().see(40, 9.0, 1.0)
    assert verdict is not None and (verdict.step, verdict.kind) == (40, "spike")
    assert verdict.words.startswith("step 40: loss 9 is ")
    assert verdict.words.endswith(" of the last 20, limit 6")


def test_no_loss_is_a_spike_before_the_window_is_full() -> None:
    guard = Guard(CONFIG)
    assert all(guard.see(step, loss, 1.0) is None for step, loss in enumerate(losses(19)))
    assert guard.see(19, 1000.0, 1.0) is None
    assert guard.see(20, 1000.0, 1.0) is not None, "one outlier in the window moves neither median nor MAD"
    assert Guard(GuardConfig(window=0)).see(0, 1e30, 1.0) is None


def test_a_fall_is_no_spike_and_a_flat_loss_makes_none_of_rounding() -> None:
    assert fed().see(40, 0.0, 1.0) is None
    flat = Guard(CONFIG)
    for step in range(20):
        flat.see(step, 1.0, 1.0)
    assert flat.see(20, 1.05, 1.0) is None
    assert flat.see(21, 1.07, 1.0) is not None


def test_a_noisy_training_without_spikes_raises_no_alarm() -> None:
    for seed in range(10):
        guard = Guard(GuardConfig())
        assert not any(guard.see(step, loss, 1.0) for step, loss in enumerate(losses(1000, seed)))


def test_robust_z_is_in_standard_deviations_of_a_normal_distribution() -> None:
    normal = [float(value) for value in np.random.default_rng(0).normal(10.0, 2.0, size=20_000)]
    middle, z = robust_z(normal, 16.0)
    assert middle == pytest.approx(10.0, abs=0.05) and z == pytest.approx(3.0, rel=0.03)


def test_a_bad_step_leaves_no_trace_in_the_window() -> None:
    guard, undisturbed = fed(), fed()
    guard.see(40, 50.0, 1.0)
    guard.see(40, math.nan, 1.0)
    assert guard.state() == undisturbed.state()


def test_it_goes_back_and_gives_up_after_too_many_in_a_row() -> None:
    guard = fed()
    line = guard.go_back(guard.see(40, 50.0, 1.0))
    assert line.startswith("step=40 kind=spike reason='step 40: loss 50 is ")
    assert line.endswith(" rollbacks=1/2")
    guard.go_back(guard.see(42, math.nan, 1.0))
    with pytest.raises(FloatingPointError) as given:
        guard.go_back(guard.see(44, math.nan, 2.0))
    assert str(given.value) == (
        "step 44: loss nan, gradient norm 2, after going back because of steps [40, 42]: that is more than "
        "max_rollbacks 2 in a row; lower the learning rate or look at the data of these steps"
    )


def test_calm_steps_end_a_row() -> None:
    guard = fed()
    guard.go_back(guard.see(40, math.nan, 1.0))
    guard.go_back(guard.see(41, math.nan, 1.0))
    for step in range(41, 51):
        assert guard.see(step, 1.4, 1.0) is None
    assert guard.go_back(guard.see(51, math.nan, 1.0)).endswith("rollbacks=1/2")


def test_where_nothing_may_be_rolled_back_the_first_bad_step_ends_training() -> None:
    guard = Guard(GuardConfig(max_rollbacks=0))
    with pytest.raises(
        FloatingPointError, match="step 3: loss nan, gradient norm 1: that is more than max_rollbacks 0"
    ):
        guard.go_back(guard.see(3, math.nan, 1.0))


@pytest.mark.parametrize("killed_at", [5, 19, 20, 33])
def test_a_resumed_run_judges_as_the_undisturbed_one(killed_at: int) -> None:
    told = losses(60)
    told[35], told[50] = 30.0, math.nan
    undisturbed, before, resumed = Guard(CONFIG), Guard(CONFIG), Guard(CONFIG)
    whole = [undisturbed.see(step, loss, 1.0) for step, loss in enumerate(told)]
    for step in range(killed_at):
        before.see(step, told[step], 1.0)
    resumed.load(json.loads(json.dumps(before.state())))
    assert [resumed.see(step, told[step], 1.0) for step in range(killed_at, 60)] == whole[killed_at:]
    assert [verdict.step for verdict in whole if verdict] == [35, 50]
    assert resumed.state() == undisturbed.state()


def test_going_back_restores_the_window_and_keeps_the_count() -> None:
    guard = fed(num=30)
    saved = guard.state()
    for step, loss in enumerate(losses(40)[30:], start=30):
        guard.see(step, loss, 1.0)
    guard.go_back(guard.see(40, math.nan, 1.0))
    guard.load(saved, keep_rollbacks=True)
    assert guard.state() == saved | {"good_steps": 0, "rollbacks": [40]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"window": 3}, "window must be 0 or at least 8 steps, got 3"),
        ({"window": -1}, "window must be 0 or at least 8 steps, got -1"),
        ({"spike_z": 0.0}, "spike_z must be above 0, got 0.0"),
        ({"spike_z": math.nan}, "spike_z must be above 0, got nan"),
        ({"max_rollbacks": -1}, "max_rollbacks must be at least 0, got -1"),
        ({"calm_steps": 0}, "calm_steps must be at least 1, got 0"),
    ],
)
def test_a_bound_that_cannot_work_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GuardConfig(**values)
