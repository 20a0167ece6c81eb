"""Learning rates over a run."""

import dataclasses
import itertools

import pytest

from telecine_components.training.config import TrainingConfig

CONFIG = TrainingConfig(num_steps=100, batch_size=1, learning_rate=0.1, warmup_steps=10)


def rates(schedule: str, **changes: float) -> list[float]:
    config = dataclasses.replace(CONFIG, schedule=schedule, **changes)
    return [config.learning_rate_at(step) for step in range(100)]


def test_the_learning_rate_rises_to_a_constant() -> None:
    assert rates("constant")[:3] == pytest.approx([0.01, 0.02, 0.03])
    assert set(rates("constant")[9:]) == {0.1}


def test_wsd_is_constant_until_its_last_share_and_then_falls_in_a_line() -> None:
    found = rates("wsd", decay_ratio=0.2, final_lr_ratio=0.1)
    assert set(found[9:80]) == {0.1}
    assert found[99] == pytest.approx(0.01)
    steps = [before - after for before, after in itertools.pairwise(found[79:])]
    assert steps == pytest.approx([0.09 / 20] * 20)


def test_cosine_is_halfway_in_the_middle_and_ends_at_the_rest() -> None:
    found = rates("cosine", final_lr_ratio=0.2)
    assert found[9] == pytest.approx(0.1)
    assert found[54] == pytest.approx(0.06)
    assert found[99] == pytest.approx(0.02)
    assert found[9:] == sorted(found[9:], reverse=True)


@pytest.mark.parametrize(("name", "value"), [("schedule", "step"), ("precision", "fp16"), ("zero_stage", 4)])
def test_what_there_is_not_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"TrainingConfig: {name} must be one of .*, got {value!r}"):
        dataclasses.replace(CONFIG, **{name: value})  # type: ignore[arg-type]
