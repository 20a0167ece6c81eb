"""The order of work: everything once, equal work for every step and rank, and nothing to remember but a number."""

import collections
import itertools
import time

import numpy as np
import pytest

from telecine.errors import InputError
from telecine_components.training.plan import LOOK_AHEAD_SAMPLES, Cost, Plan, Shape
from telecine_components.training.randomness import permutation
from telecine_models import flops
from telecine_models.video_dit.config import VideoDiTConfig

CONFIG = VideoDiTConfig.from_depth(8, patch_size=(1, 4, 4))
COST = Cost.of(CONFIG, num_text_tokens=8)
SHAPES: list[Shape] = [(8, 32, 32), (8, 32, 48), (16, 32, 32), (4, 64, 64), (1, 64, 64), (16, 48, 64)]
ONE_SHAPE: list[Shape] = [(8, 32, 32)] * 50


def mixed(num_samples: int, seed: int = 0) -> list[Shape]:
    """Shapes whose work differs sixtyfold."""
    return [SHAPES[i] for i in np.random.default_rng(seed).integers(len(SHAPES), size=num_samples)]


def plan(shapes: list[Shape], batch_size: int = 8, seed: int = 5, look_ahead: int = LOOK_AHEAD_SAMPLES) -> Plan:
    return Plan(shapes, COST, seed=seed, batch_size=batch_size, look_ahead=look_ahead)


def test_the_work_of_a_sample_is_that_of_the_model() -> None:
    num_tokens = 8 * 8 * 8
    alone = Cost.of(CONFIG)
    whole = flops.video_dit(CONFIG, num_video_tokens=num_tokens, num_text_tokens=0).training_flops
    assert alone.tokens((8, 32, 32)) == num_tokens
    assert alone.flops((8, 32, 32)) == pytest.approx(whole)
    with_text = flops.video_dit(CONFIG, num_video_tokens=num_tokens, num_text_tokens=8).training_flops
    assert COST.flops((8, 32, 32)) == pytest.approx(with_text)


@pytest.mark.parametrize("shape", [(8, 30, 32), (0, 32, 32)])
def test_a_shape_that_cannot_be_cut_into_patches_is_refused(shape: Shape) -> None:
    with pytest.raises(InputError, match="plan: num_tokens: shape must be positive multiples"):
        plan([(8, 32, 32), shape])


@pytest.mark.parametrize(("shapes", "batch_size", "name"), [([], 8, "samples"), (ONE_SHAPE, 0, "batch_size")])
def test_nothing_to_do_is_refused(shapes: list[Shape], batch_size: int, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        plan(shapes, batch_size)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(50, 8), (64, 8), (7, 3), (5, 8), (50, 1), (1000, 16)])
def test_samples_of_one_shape_follow_the_permutation(num_samples: int, batch_size: int) -> None:
    uniform = plan([(8, 32, 32)] * num_samples, batch_size)
    order = np.concatenate([permutation(num_samples, 5, 1, epoch) for epoch in range(4)])
    for number in range(3 * num_samples // batch_size):
        step = uniform.step(number)
        places = np.arange(number * batch_size, (number + 1) * batch_size)
        assert (step.positions == places).all()
        assert (step.indices == order[places]).all()
        (whole,) = step.of_rank(0, 1)
        assert whole.positions == tuple(places)


@pytest.mark.parametrize("num_samples", [7, 50, 64, 1000])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("look_ahead", [1, 40, 4096])
def test_every_sample_is_met_once_an_epoch_and_an_epoch_ends_before_the_next_goes_on(
    num_samples: int, batch_size: int, look_ahead: int
) -> None:
    chosen = plan(mixed(num_samples), batch_size, look_ahead=look_ahead)
    num_steps = chosen.steps_per_window * (3 * num_samples // (chosen.steps_per_window * batch_size) + 1)
    steps = [chosen.step(number) for number in range(num_steps)]
    positions = np.concatenate([step.positions for step in steps])
    assert sorted(positions) == list(range(num_steps * batch_size))
    assert min(step.num_samples for step in steps) >= 1
    assert [chosen.index_at(place) for place in positions] == np.concatenate([s.indices for s in steps]).tolist()
    epochs = [step.positions // num_samples for step in steps]
    assert all(one.max() <= other.min() for one, other in itertools.pairwise(epochs))
    for epoch in range(3):
        met = np.concatenate([s.indices[each == epoch] for s, each in zip(steps, epochs, strict=True)])
        assert sorted(met) == list(range(num_samples))


def test_a_step_depends_on_nothing_but_its_number() -> None:
    shapes = mixed(300)
    walked, jumped = plan(shapes), plan(shapes)
    forward = [walked.step(number) for number in range(120)]
    for number in (119, 3, 77, 0, 118):
        step = jumped.step(number)
        assert (step.positions == forward[number].positions).all() and (step.indices == forward[number].indices).all()
    assert plan(shapes, seed=6).step(0).indices.tolist() != forward[0].indices.tolist()


def test_ranks_share_the_step_that_one_would_do_alone() -> None:
    chosen = plan(mixed(300), batch_size=12)
    for number in range(30):
        step = chosen.step(number)
        for world_size in (1, 2, 3, 40):
            shares = [step.of_rank(rank, world_size) for rank in range(world_size)]
            found = [place for share in shares for group in share for place in group.positions]
            assert sorted(found) == step.positions.tolist()
    with pytest.raises(ValueError, match="rank must be one of 0..1, got 2"):
        step.of_rank(2, 2)


def test_a_micro_batch_has_one_shape_and_no_more_tokens_than_allowed() -> None:
    shapes = mixed(300)
    chosen = plan(shapes, batch_size=24)
    groups = chosen.step(0).of_rank(0, 1)
    assert len({group.shape for group in groups}) == len(groups)
    assert all(shapes[i] == group.shape for group in groups for i in group.indices)
    assert [COST.flops(g.shape) for g in groups] == sorted((COST.flops(g.shape) for g in groups), reverse=True)
    small = chosen.step(0).of_rank(0, 1, max_tokens=1100)
    assert sum(group.num_tokens for group in small) == sum(group.num_tokens for group in groups)
    assert all(group.num_tokens <= 1100 or len(group.indices) == 1 for group in small)
    assert [i for g in small for i in g.indices] == [i for g in groups for i in g.indices]


def test_steps_and_ranks_have_equal_work() -> None:
    chosen = plan(mixed(20_000), batch_size=32)
    steps = [chosen.step(number) for number in range(700)]
    work = np.array([step.flops for step in steps])
    assert work.mean() == pytest.approx(chosen.flops_per_step, rel=0.01)
    assert work.std() / work.mean() < 0.005
    assert np.abs(work / work.mean() - 1).max() < 0.01
    plain = np.array([chosen.costs[[chosen.index_at(32 * s + i) for i in range(32)]].sum() for s in range(700)])
    assert work.std() < 0.05 * plain.std(), "consecutive samples differ this much more"
    ranks = np.array([step.flops_of_ranks(4) for step in steps])
    assert (ranks.max(1) / ranks.mean(1)).mean() < 1.02


def test_the_step_in_which_an_epoch_ends_has_the_work_of_the_others() -> None:
    chosen = plan(mixed(1003), batch_size=32)
    work = {number: chosen.step(number).flops for number in range(320)}
    seams = [n for n in work if len(set((chosen.step(n).positions // 1003).tolist())) > 1]
    assert len(seams) >= 9
    assert np.mean([work[n] for n in seams]) == pytest.approx(chosen.flops_per_step, rel=0.1)


def test_a_sample_heavier_than_a_step_gets_one_nearly_alone() -> None:
    shapes: list[Shape] = [(1, 32, 32)] * 99 + [(64, 64, 64)]
    chosen = plan(shapes, batch_size=4)
    sizes = collections.Counter(chosen.step(n).num_samples for n in range(25))
    assert sizes[1] == 1 and sum(size * number for size, number in sizes.items()) == 100


def test_a_million_samples_are_planned_in_seconds() -> None:
    began = time.process_time()
    chosen = plan(mixed(1_000_000), batch_size=64)
    for number in (0, 1, 15_624, 15_625, 400_000):
        assert chosen.step(number).num_samples > 0
    assert time.process_time() - began < 20
