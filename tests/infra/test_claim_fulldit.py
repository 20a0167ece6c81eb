"""The study of FullDiT: what its conditions tell, that films are read right, that its arms begin and cost the same."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

CLAIMS = Path(__file__).parents[2] / "infra" / "claims"


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims' modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(CLAIMS))


def some_shots(num_shots: int = 32, **size: int) -> Any:
    from wall_shots import draw_shots

    return draw_shots((7,), num_shots, **({"num_frames": 4, "side_px": 16} | size))


def awake(model: Any) -> Any:
    """A model whose zero layers hold something, so that what reaches it shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


# What the shots show


def test_each_condition_tells_its_part_and_shots_are_of_their_stream() -> None:
    import wall_shots

    shots = some_shots()
    assert torch.equal(shots.x0, some_shots().x0)
    assert not torch.equal(shots.x0, wall_shots.draw_shots((8,), 32, 4, 16).x0)
    assert torch.equal(some_shots(8).x0, shots.x0[:8]), "more shots leave the first as they are"
    assert torch.equal(shots.shown, shots.depth[:, 0] > 0.99)
    assert torch.allclose(shots.depth.amin((1, 2, 3, 4)), torch.tensor(-1.0), atol=1e-5)
    poses = shots.camera.unflatten(2, (3, 4))
    moved_m = 0.5 * poses[:, :, 0, 3]
    assert torch.allclose(poses[..., :3], torch.eye(3).expand(32, 4, 3, 3))
    assert torch.allclose(moved_m, shots.truck_m[:, None] * torch.linspace(0, 1, 4), atol=1e-5)
    levels = (shots.elements[:, 0, :, 4, 4] + 1) * 127.5
    distance = (levels[:, None] - wall_shots.look_levels()).norm(dim=2)
    assert torch.equal(distance.argmin(1), shots.colour)


def test_what_conditions_tell_is_drawn_independently() -> None:
    shots = some_shots(400, side_px=8)
    told = torch.stack((shots.truck_m, shots.colour.float(), shots.shown[:, 0].float().mean((1, 2))))
    apart = torch.corrcoef(told) - torch.eye(3)
    assert apart.abs().max() < 0.15


# How films are read


@pytest.mark.parametrize("size", [{"num_frames": 4, "side_px": 16}, {"num_frames": 8, "side_px": 32}])
def test_true_films_are_read_right_and_others_are_not(size: dict[str, int]) -> None:
    from conditioning import Scale
    from shot_readings import misses

    shots = some_shots(**size)
    found = {kind: float(values.mean()) for kind, values in misses(shots.x0, shots).items()}
    assert found["camera"] < 0.06 and found["depth"] < 0.1 and found["elements"] < 0.05
    other = misses(shots.x0.roll(1, 0), shots)
    assert other["camera"].mean() > 0.3 and other["depth"].mean() > 0.6 and other["elements"].mean() > 0.5
    scale = Scale.of(shots)
    assert scale.scores(shots.x0, shots) == dict.fromkeys(found, 1.0)
    assert scale.scores(shots.x0.roll(1, 0), shots) == dict.fromkeys(found, 0.0)


def test_a_planted_move_is_read_in_metres() -> None:
    import wall_shots
    from shot_readings import read_truck_m

    wide = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 16, 40))).float()
    for px_per_frame in (-1, 0, 1):
        starts = [12 + px_per_frame * frame for frame in range(4)]
        film = torch.stack([wide[..., start : start + 16] for start in starts], dim=1)
        read = read_truck_m(film, torch.zeros(film.shape, dtype=torch.bool))
        assert float(read) == pytest.approx(3 * px_per_frame * wall_shots.WALL_M / 16, abs=1e-5)


def test_films_that_show_nothing_follow_nothing() -> None:
    from conditioning import Scale
    from shot_readings import misses

    shots = some_shots()
    scale = Scale.of(shots)
    empty = misses(torch.zeros_like(shots.x0), shots)
    assert bool((empty["depth"] == 1).all()) and bool((empty["elements"] == 1).all())
    assert max(scale.scores(torch.zeros_like(shots.x0), shots).values()) < 0.2
    noise = torch.randn(shots.x0.shape, generator=torch.Generator().manual_seed(0))
    assert max(scale.scores(noise, shots).values()) < 0.35


# The arms


def test_adapters_add_nothing_at_first_and_then_their_sum() -> None:
    from adapters import Adapter, composed, model_of
    from fulldit import SHORT
    from wall_shots import KINDS

    frozen, shots = awake(model_of(SHORT.config)), some_shots(4)
    made = [Adapter(kind, SHORT.config, frozen.state_dict(), 2) for kind in KINDS]
    x, t = torch.randn(shots.x0.shape), torch.rand(4)
    with torch.no_grad():
        alone = frozen(x, t, shots.text, shots.real)
        assert torch.equal(composed(frozen, [], x, t, shots), alone)
        assert torch.equal(composed(frozen, made, x, t, shots), alone)
        for each in made:
            awake(each)
        both = composed(frozen, made[:2], x, t, shots)
        assert not torch.allclose(both, alone, atol=1e-3)
        assert torch.allclose(composed(frozen, made[1::-1], x, t, shots), both, atol=1e-5)
        first, second = (each(x, t, shots) for each in made[:2])
        summed = frozen(x, t, shots.text, shots.real, steer=lambda v, i: first[i] + second[i] if i < 2 else 0 * v)
        assert torch.allclose(summed, both, atol=1e-5)


def test_every_weight_that_an_adapter_trains_takes_part_and_the_frozen_model_has_no_gradient() -> None:
    from adapters import Adapter, composed, model_of
    from fulldit import SHORT

    frozen, shots = awake(model_of(SHORT.config)).requires_grad_(False), some_shots(4)
    adapter = awake(Adapter("depth", SHORT.config, frozen.state_dict(), 2))
    composed(frozen, [adapter], torch.randn(shots.x0.shape), torch.rand(4), shots).square().sum().backward()
    idle = [name for name, each in adapter.named_parameters() if each.requires_grad and each.grad is None]
    assert not idle
    assert all(each.grad is None for each in frozen.parameters())


def test_a_model_inherits_all_but_its_conditions() -> None:
    from adapters import inherit, model_of
    from fulldit import SHORT
    from wall_shots import KINDS

    base = awake(model_of(SHORT.config))
    model = inherit(model_of(dataclasses.replace(SHORT.config, conditions=KINDS)), base.state_dict()).eval()
    shots, t = some_shots(4), torch.rand(4)
    with torch.no_grad():
        assert torch.equal(model(shots.x0, t, shots.text, shots.real), base(shots.x0, t, shots.text, shots.real))
    fewer = {name: value for name, value in base.state_dict().items() if not name.startswith("blocks.3.")}
    with pytest.raises(ValueError, match=r"lack \['blocks.3"):
        inherit(model_of(SHORT.config), fewer)


def test_training_gives_each_shot_one_condition_and_never_two() -> None:
    from conditioning import SINGLES, TEXT, mean_loss
    from fulldit import SHORT
    from wall_shots import KINDS

    batch, seen = some_shots(SHORT.batch_size), []

    def listening(x: Any, t: Any, shots: Any, given: tuple[str, ...]) -> Any:
        seen.append((given, shots.truck_m))
        return torch.zeros_like(x)

    noise, times = torch.randn(batch.x0.shape), torch.rand(len(batch))
    loss = mean_loss(batch, times, noise, dict.fromkeys(SINGLES, listening))
    assert [given for given, _ in seen] == [(kind,) for kind in KINDS]
    assert torch.equal(torch.cat([which for _, which in seen]), batch.truck_m)
    assert float(loss) == pytest.approx(float((noise - batch.x0).square().mean()), rel=1e-5)
    one = mean_loss(batch, times, noise, {("depth",): listening})
    middle = slice(SHORT.batch_per_kind, 2 * SHORT.batch_per_kind)
    assert float(one) == pytest.approx(float((noise - batch.x0)[middle].square().mean()), rel=1e-5)
    assert torch.equal(seen[-1][1], batch.truck_m[middle]), (
        "an adapter meets the shots that the one model has its kind in"
    )
    mean_loss(batch, times, noise, {TEXT: listening})
    assert seen[-1][0] == () and torch.equal(seen[-1][1], batch.truck_m)


@pytest.mark.parametrize("name", ["LAPTOP", "GPU"])
def test_arms_are_given_equal_flops(name: str) -> None:
    import conditioning
    import fulldit

    setup = dataclasses.replace(getattr(fulldit, name), batch_per_kind=1)
    together, apart = conditioning.step_flops(setup)
    steps = conditioning.steps_of(setup)
    assert steps["adapters"] * apart == pytest.approx(steps["one_sequence"] * together, rel=1e-3)
    # Backward has two products for each of forward, but for the inputs' projections, which need no gradient of data.
    from telecine_models import flops

    frames, rows, columns = setup.patch_size
    video = setup.num_frames // frames * (setup.side_px // rows) * (setup.side_px // columns)
    told = {"camera": setup.num_frames // frames, "depth": video, "elements": 4}
    config = dataclasses.replace(setup.config, conditions=("depth",))
    counted = sum(
        flops.video_dit(config, num_video_tokens=video, num_text_tokens=2, num_condition_tokens=num).training_flops
        for num in told.values()
    )
    assert together == pytest.approx(counted, rel=0.06)


def test_a_run_is_a_function_of_its_task(tmp_path: Path) -> None:
    from conditioning import TOGETHER, Base, Conditioned, figure
    from fulldit import SHORT

    base = Base(seed=3, setup=SHORT, device="cpu", folder=str(tmp_path))
    assert base().figures == base().figures
    for arm in ("one_sequence", "adapters"):
        task = Conditioned(
            arm=arm, seed=3, setup=SHORT, learning_rate=3e-3, num_steps=2, device="cpu", folder=str(tmp_path)
        )
        first, second = task(), task()
        assert first.figures == second.figures
        followed = [np.mean([first.figures[figure(kind, given)] for kind in given]) for given in TOGETHER]
        assert first.figures["followed"] == pytest.approx(np.mean(followed))
        assert first.figures["missed"] == pytest.approx(1 - np.mean(followed))
        losses = np.array([first.figures[figure("loss", given)] for given in TOGETHER])
        assert first.figures["saved"] == pytest.approx(np.mean(1 - losses / first.figures["loss_given_text"]))


def test_composition_is_presupposed_in_every_seed() -> None:
    from conditioning import SINGLES, TEXT, TRIPLE, figure
    from fulldit import presupposed
    from wall_shots import KINDS

    good = {figure(kind, TRIPLE): 0.6 for kind in KINDS} | {figure(kind, TEXT): 0.1 for kind in KINDS}
    good |= {figure("loss", TRIPLE): 0.1} | {figure("loss", one): 0.2 for one in SINGLES}
    good |= {"followed": 0.6, "followed_alone": 0.7}
    assert list(presupposed([good, good]).values()) == [True, True, True]
    assert list(presupposed([good, good | {figure("loss", ("camera",)): 0.1}]).values()) == [False, True, True]
    assert list(presupposed([good, good | {figure("depth", TEXT): 0.6}]).values()) == [True, False, True]
    assert list(presupposed([good, good | {"followed": 0.5}]).values()) == [True, True, False]


class AtOnce:
    """Carries out tasks in this process."""

    def __init__(self) -> None:
        self.done: dict[Any, Any] = {}

    def __call__(self, tasks: Any) -> list[Any]:
        self.done |= {task: task() for task in tasks}
        return [self.done[task] for task in tasks]


def test_the_study_tunes_apart_from_the_reported_seeds_and_draws_its_films(tmp_path: Path) -> None:
    import findings
    import fulldit

    runs = AtOnce()
    trial = findings.Trial(size="short", profile="laptop", seeds=(2,), runs=runs, pictures=tmp_path / "pictures")
    found = fulldit.study(trial)
    followed = {task.arm: each.figures.get("followed") for task, each in runs.done.items() if task.seed == 2}
    assert found.effects == {2: followed["one_sequence"] - followed["adapters"]}
    rates: dict[tuple[str, int], list[float]] = {}
    for task in runs.done:
        if task.arm != "base":
            rates.setdefault((task.arm, task.seed), []).append(task.learning_rate)
    for arm in ("one_sequence", "adapters"):
        assert rates[arm, findings.TUNING_SEEDS[0]] == list(fulldit.SHORT.rates(arm))
        assert rates[arm, 2] == [found.details["tuning"][arm]["taken"]]
    assert (tmp_path / "pictures" / "films.png").stat().st_size < 150_000
    assert len({task.folder for task in runs.done}) == 1 and not Path(next(iter(runs.done)).folder).exists()
