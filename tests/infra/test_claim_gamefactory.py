"""The study of GameFactory: its readings on films with known answers, its phases, and that arms cost the same."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

CLAIMS = Path(__file__).parents[2] / "infra" / "claims"
SHARED_FIELDS = {"seed": 3, "device": "cpu"}


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims' modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(CLAIMS))


def shoot(style: str, split: int = 0, num_clips: int = 32, reach_deg: float = 8.0) -> Any:
    import footage

    return footage.Shoot(style=style, split=split, num_clips=num_clips, num_frames=4, side_px=16, reach_deg=reach_deg)


def figures_of(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"following": following, "lora_kept_following": kept} for following, kept in pairs]


# Footage


def test_footage_of_seeds_splits_and_styles_is_different_and_of_a_seed_the_same() -> None:
    import footage

    shots = [
        footage.footage(shoot(style, split, 4), seed)
        for style in ("open world", "block game")
        for split in (0, 1)
        for seed in (0, 1)
    ]
    turns = [tuple(turn) for shot in shots for turn in shot.turns_deg.tolist()]
    assert len(set(turns)) == len(turns), "no two clips have their turns in common"
    again = footage.footage.__wrapped__(shoot("open world", 0, 4), 0)
    assert torch.equal(again.x0, shots[0].x0) and torch.equal(again.turns_deg, shots[0].turns_deg)
    with pytest.raises(ValueError, match="at most 100000"):
        footage.footage(shoot("open world", num_clips=100_001), 0)


def test_prompts_name_style_and_place_alone() -> None:
    import footage

    open_world, game = (footage.footage(shoot(style), 0) for style in ("open world", "block game"))
    texts = [{tuple(prompt.flatten().tolist()) for prompt in shot.text} for shot in (open_world, game)]
    assert [len(each) for each in texts] == [3, 3] and not texts[0] & texts[1]


def test_actions_are_the_turns_and_no_keys() -> None:
    import footage

    shot = footage.footage(shoot("block game", num_clips=4), 0)
    assert not shot.actions.keys.any() and not shot.actions.mouse[..., 0].any()
    assert torch.equal(shot.actions.mouse[..., 1], shot.turns_deg)
    assert shot.turns_deg.abs().max() <= 8


# Readings


@pytest.mark.parametrize("style", ["open world", "block game"])
def test_turns_are_read_off_real_footage_of_both_looks(style: str) -> None:
    """Both arms are read equally well, whatever their films look like."""
    import footage

    display = footage.display_of(footage.footage(shoot("block game", 1), 5).x0)
    shot = footage.footage(shoot(style), 5)
    read = footage.read_turns(shot.x0, display, 8.0)
    assert footage.following(read, shot.turns_deg) > 0.93
    assert float((read - shot.turns_deg).abs().median()) < 1.0


def test_a_view_that_does_not_turn_is_read_as_zero() -> None:
    import footage

    still = footage.footage(shoot("open world", num_clips=4), 5).x0[:, :, :1].expand(-1, -1, 4, -1, -1)
    read = footage.read_turns(still, torch.zeros(16, 16, dtype=torch.bool), 8.0)
    assert read.shape == (4, 3) and float(read.abs().max()) < 0.25


def test_the_display_is_what_never_changes_in_a_game() -> None:
    import footage

    game, open_world = (
        footage.display_of(footage.footage(shoot(style), 5).x0) for style in ("block game", "open world")
    )
    assert 0.1 < float(game.float().mean()) < 0.4 and bool(game[-2, 8])
    assert not open_world.any()


def test_following_is_a_correlation_and_zero_where_nothing_turns() -> None:
    import footage

    commanded = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    assert footage.following(3 * commanded + 1, commanded) == pytest.approx(1.0)
    assert footage.following(-commanded, commanded) == pytest.approx(-1.0)
    assert footage.following(torch.ones(2, 2), commanded) == 0.0


def test_palettes_apart_by_a_shift_are_as_far_apart_as_directions_see_it() -> None:
    import footage

    films = torch.rand(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    assert footage.palette_distance(films, films.flip(-1)) == 0.0, "places do not count"
    grey = torch.full((1, 3, 1, 4, 4), 0.25)
    shifts = [footage.palette_distance(grey, grey + step) for step in (0.1, 0.2)]
    assert shifts[1] == pytest.approx(2 * shifts[0], rel=1e-4) and shifts[0] > 0
    assert footage.palette_distance(films, films + 0.3) == pytest.approx(
        footage.palette_distance(grey, grey + 0.3), rel=1e-4
    )


# Phases


def test_arms_cost_the_same_and_no_phase_what_it_does_not_train() -> None:
    import phases

    look, moves, together = phases.phase_flops(phases.LAPTOP)
    steps = phases.steps_of(phases.LAPTOP)
    (look_steps, moves_steps), (one_steps,) = steps["multi_phase"], steps["one_phase"]
    assert one_steps * together == pytest.approx(look_steps * look + moves_steps * moves, rel=0.005)
    assert one_steps * together <= look_steps * look + moves_steps * moves
    # Frozen weights need no gradients: a third of a step.
    assert look < moves < together


def test_a_lora_begins_as_nothing_and_is_all_that_trains() -> None:
    import phases

    model = phases.fresh_base(phases.SHORT, 3, "cpu")
    torch.nn.init.normal_(model.patch_out.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.time_modulation.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    seen = torch.randn(1, 3, 4, 16, 16), torch.rand(1), torch.randn(1, 3, 64)
    num_linear = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    before = model(*seen)
    layers = phases.add_lora(model, 2, 3)
    assert len(layers) == num_linear
    assert torch.equal(model(*seen), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(model(*seen), before, atol=1e-3)
    for layer in layers:
        layer.enable_adapters(False)
    assert torch.equal(model(*seen), before), "phase 3 gives the base back"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with the base of a seed."""
    import phases

    phases.Base(world=phases.SHORT, folder=str(tmp_path), **SHARED_FIELDS)()
    return str(tmp_path)


@pytest.mark.parametrize("arm", ["multi_phase", "one_phase"])
def test_a_run_is_a_function_of_its_task(folder: str, arm: str) -> None:
    import phases

    steps = phases.steps_of(phases.SHORT)[arm]
    task = phases.Steered(
        arm=arm, world=phases.SHORT, learning_rate=1e-3, num_steps=steps, folder=folder, **SHARED_FIELDS
    )
    first, second = task(), task()
    assert first.figures == second.figures
    assert all(np.array_equal(first.films[name], second.films[name]) for name in first.films)
    other = dataclasses.replace(task, learning_rate=1e-2)()
    assert other.figures["takeover"] != first.figures["takeover"]


def test_the_base_of_multi_phase_is_not_touched(folder: str) -> None:
    """A rate of nought for the action module leaves films that the base alone would have made."""
    import phases

    base = phases.Base(world=phases.SHORT, folder=folder, **SHARED_FIELDS)()
    task = phases.Steered(
        arm="multi_phase", world=phases.SHORT, learning_rate=0.0, num_steps=(4, 1), folder=folder, **SHARED_FIELDS
    )
    found = task()
    assert all(np.array_equal(found.films[name], base.films[name]) for name in base.films)
    assert found.figures["takeover"] == base.figures["takeover"] != found.figures["lora_kept_takeover"]


def test_real_footage_is_judged_to_be_what_it_is() -> None:
    import phases

    world = dataclasses.replace(phases.LAPTOP, num_judged=32)
    open_world, game = (phases.real_figures(world, style, 3) for style in ("open world", "block game"))
    assert open_world["takeover"] < 0.2 < 0.8 < game["takeover"] < 1.2
    assert min(open_world["following"], game["following"]) > 0.9


def test_what_is_presupposed_is_decided_by_lower_ends() -> None:
    import gamefactory

    def held(*pairs: tuple[float, float], shortfalls: tuple[float, float] = (0.3, 1.0)) -> list[bool]:
        multi, one = ([each | {"shortfall": short} for each in figures_of(*pairs)] for short in shortfalls)
        return list(gamefactory.presupposed(multi, one).values())

    assert held((0.7, 0.8), (0.72, 0.8), (0.71, 0.8)) == [True, True, True]
    assert held((0.7, 0.99), (0.71, 0.99), (0.72, 0.99)) == [True, False, True]
    assert held((0.3, 0.3), (0.31, 0.31), (0.32, 0.32)) == [False, True, True]
    assert held((0.7, 0.8), (0.72, 0.8), shortfalls=(1.0, 0.9))[2] is False, "control that was bought too dearly"
    assert held((0.9, 0.9), (0.1, 0.1), (0.8, 0.8))[0] is False, "a mean of 0.6 is not enough where seeds disagree"
    assert held((0.9, 0.9)) == [False, False, False], "one seed shows nothing"
    assert not all(held((0.0, 0.0), (0.0, 0.0)))
