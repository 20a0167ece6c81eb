"""Action control: which action reaches which frame, what keys and mouse do, and that a fresh module does nothing."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from telecine_models.video_dit.action import (
    ActionControl,
    Actions,
    MouseAttention,
    action_windows,
    group_actions,
)

NUM_FRAMES, COMPRESSION, WINDOW = 5, 2, 2
NUM_ACTIONS = COMPRESSION * (NUM_FRAMES - 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_actions(num_actions: int = NUM_ACTIONS, batch: int = 2, num_keys: int = 7, seed: int = 0) -> Actions:
    keys = random(batch, num_actions, num_keys, seed=seed) > 0.5
    return Actions(keys=keys, mouse=15 * random(batch, num_actions, 2, seed=seed + 1))


VIDEO, ACTIONS = random(2, NUM_FRAMES, 3, 32, seed=7), some_actions()


@pytest.fixture
def awake() -> Callable[..., ActionControl]:
    """A tiny module whose zero-initialised outputs are filled, so that every action shows."""

    def build(**sizes: Any) -> ActionControl:
        torch.manual_seed(0)
        defaults = {"width": 32, "num_layers": 1, "head_dim": 8, "compression": COMPRESSION, "window": WINDOW}
        control = ActionControl(**(defaults | sizes))
        for parameter in control.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return control

    return build


def residual(control: ActionControl, actions: Actions, video: Tensor = VIDEO) -> Tensor:
    return control(video, control.group(actions, video.shape[1]), 0)


def changed_frames(one: Tensor, other: Tensor) -> list[int]:
    return (one != other).flatten(2).any(2).any(0).nonzero().flatten().tolist()


def test_a_latent_frame_sees_its_own_group_and_those_before_it() -> None:
    assert action_windows(4, 4, 1).tolist() == [[-1] * 4, [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert action_windows(4, 2, 2).tolist() == [[-1] * 4, [-1, -1, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5]]
    assert action_windows(4, 1, 3).tolist() == [[-1, -1, -1], [-1, -1, 0], [-1, 0, 1], [0, 1, 2]]
    assert action_windows(1, 4, 2).tolist() == [[-1] * 8]


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("compression", [1, 4])
@pytest.mark.parametrize("groups", range(9))
def test_windows_hold_the_latest_actions_and_none_that_comes_later(groups: int, compression: int, window: int) -> None:
    windows = action_windows(groups + 1, compression, window)
    assert windows.shape == (groups + 1, compression * window)
    for frame, seen in enumerate(windows.tolist()):
        # Action j leads to video frame j+1, and latent frame i ends with video frame r i.
        last = compression * frame
        earliest = max(0, last - compression * window)
        assert [action for action in seen if action >= 0] == list(range(earliest, last))
        assert seen == sorted(seen)
    assert set(windows.flatten().tolist()) - {-1} == set(range(compression * groups))


@pytest.mark.parametrize(("video_frames", "latent_frames"), [(57, 15), (77, 20), (1, 1)])
def test_the_actions_of_published_lengths_fit(video_frames: int, latent_frames: int) -> None:
    grouped = group_actions(some_actions(video_frames - 1, batch=1), latent_frames, 4, 3)
    assert grouped.keys.shape == (1, latent_frames, 12, 7)
    assert grouped.mouse.shape == (1, latent_frames, 36)
    assert grouped.known.sum() == sum(min(12, 4 * frame) for frame in range(latent_frames))


def test_grouping_copies_actions_into_their_slots_and_leaves_the_padding_empty() -> None:
    keys = torch.tensor([[[True, False], [False, True]]])
    actions = Actions(keys=keys, mouse=torch.tensor([[[15.0, -30.0], [0.0, 7.5]]]))
    grouped = group_actions(actions, 3, 1, 2)
    nothing = [False, False]
    assert grouped.keys.tolist() == [[[nothing, nothing], [nothing, [True, False]], [[True, False], [False, True]]]]
    assert grouped.mouse.tolist() == [[[0] * 6, [0, 0, 0, 1, -2, 1], [1, -2, 1, 0, 0.5, 1]]]
    assert grouped.known.tolist() == [[[False, False], [False, True], [True, True]]]


def test_a_fresh_module_changes_nothing() -> None:
    control = ActionControl(width=32, num_layers=2, compression=COMPRESSION)
    grouped = control.group(ACTIONS, NUM_FRAMES)
    for layer in (0, 1):
        assert torch.equal(VIDEO + control(VIDEO, grouped, layer), VIDEO)


def test_a_fresh_module_learns_from_its_first_step() -> None:
    control = ActionControl(width=32, num_layers=1, compression=COMPRESSION)
    residual(control, ACTIONS).sub(VIDEO).square().mean().backward()
    for output in (control.blocks[0].mouse.to_out, control.blocks[0].keys.to_out):
        assert output.weight.grad.abs().max() > 0


def test_every_parameter_learns_once_awake(awake: Callable[..., ActionControl]) -> None:
    control = awake()
    residual(control, ACTIONS).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in control.parameters())


@pytest.mark.parametrize("what", ["keys", "mouse"])
@pytest.mark.parametrize("action", range(NUM_ACTIONS))
def test_an_action_changes_its_own_latent_frame_and_never_an_earlier_one(
    awake: Callable[..., ActionControl], what: str, action: int
) -> None:
    control, seen = awake(), residual(awake(), ACTIONS)
    changed = getattr(ACTIONS, what).clone()
    changed[:, action] = ~changed[:, action] if what == "keys" else changed[:, action] + 20
    frames = changed_frames(residual(control, dataclasses.replace(ACTIONS, **{what: changed})), seen)
    first = 1 + action // COMPRESSION
    # Attention over time carries the mouse, and through it the queries of the keys, to all later frames.
    assert frames == list(range(first, NUM_FRAMES if what == "mouse" else min(NUM_FRAMES, first + WINDOW)))


def test_the_mouse_acts_directly_within_its_window_and_through_time_after_it(
    awake: Callable[..., ActionControl],
) -> None:
    grouped = awake().group(ACTIONS, NUM_FRAMES)
    moved = dataclasses.replace(ACTIONS, mouse=ACTIONS.mouse.index_fill(1, torch.tensor([0]), 99.0))
    assert changed_frames(awake().group(moved, NUM_FRAMES).mouse[..., None], grouped.mouse[..., None]) == [1, 2]
    assert changed_frames(residual(awake(), moved), residual(awake(), ACTIONS)) == [1, 2, 3, 4]


def test_earlier_frames_do_not_see_later_features_either(awake: Callable[..., ActionControl]) -> None:
    later = VIDEO.clone()
    later[:, 3] += 1
    assert changed_frames(residual(awake(), ACTIONS, later), residual(awake(), ACTIONS)) == [3, 4]


def test_the_first_latent_frame_is_what_the_player_found(awake: Callable[..., ActionControl]) -> None:
    control = awake()
    assert residual(control, ACTIONS)[:, 0].abs().max() == 0
    image = residual(control, some_actions(0), VIDEO[:, :1])
    assert image.shape == (2, 1, 3, 32)
    assert image.abs().max() == 0


def test_unknown_actions_tell_nothing_and_a_film_without_any_is_left_alone(awake: Callable[..., ActionControl]) -> None:
    known = torch.ones(2, NUM_ACTIONS, dtype=torch.bool)
    assert torch.equal(residual(awake(), dataclasses.replace(ACTIONS, known=known)), residual(awake(), ACTIONS))
    known[0, 3:5], known[1] = False, False
    seen = residual(awake(), dataclasses.replace(ACTIONS, known=known))
    other = some_actions(seed=5)
    hidden = Actions(
        keys=torch.where(known[..., None], ACTIONS.keys, other.keys),
        mouse=torch.where(known[..., None], ACTIONS.mouse, other.mouse),
        known=known,
    )
    assert torch.equal(residual(awake(), hidden), seen)
    assert not torch.allclose(seen[0], residual(awake(), ACTIONS)[0])
    assert seen[1].abs().max() == 0
    assert seen.isfinite().all()


def test_keys_act_on_what_the_mouse_made_of_the_features(awake: Callable[..., ActionControl]) -> None:
    """So what both do together is more than the sum of what each does."""
    control, nothing = (
        awake(),
        Actions(keys=torch.zeros_like(ACTIONS.keys), mouse=torch.zeros_like(ACTIONS.mouse)),
    )
    only_keys, only_mouse = (
        dataclasses.replace(nothing, **{name: getattr(ACTIONS, name)}) for name in ("keys", "mouse")
    )
    both, keys, mouse, none = (residual(control, actions) for actions in (ACTIONS, only_keys, only_mouse, nothing))
    assert not torch.allclose(both - mouse, keys - none, atol=1e-2)


def test_an_unknown_action_is_not_the_same_as_doing_nothing(awake: Callable[..., ActionControl]) -> None:
    still = Actions(keys=torch.zeros_like(ACTIONS.keys), mouse=torch.zeros_like(ACTIONS.mouse))
    known = torch.ones(2, NUM_ACTIONS, dtype=torch.bool)
    known[:, 3] = False
    half_known = dataclasses.replace(still, known=known)
    assert not torch.allclose(residual(awake(), still), residual(awake(), half_known), atol=1e-3)


def test_the_mouse_keeps_its_magnitude_and_its_sign(awake: Callable[..., ActionControl]) -> None:
    control = awake()
    keys = torch.zeros_like(ACTIONS.keys)

    def turned(degrees: float) -> Tensor:
        return residual(control, Actions(keys=keys, mouse=torch.full_like(ACTIONS.mouse, degrees)))

    still = turned(0)
    distances = torch.stack([(turned(degrees) - still).norm() for degrees in (1.0, 4.0, 16.0, 64.0, 256.0)])
    # Four times the turn is nearly four times the change, however far it is.
    assert ((distances[1:] / distances[:-1]) > 3).all()
    assert not torch.allclose(turned(-8) - still, turned(8) - still, atol=1e-2)


def test_the_sum_of_two_layers_is_the_layer_over_the_concatenation() -> None:
    """The mouse is not copied to every token; the module computes what it would if it were."""
    torch.manual_seed(0)
    module = MouseAttention(width=32, num_heads=2, head_dim=8, num_slots=4)
    mouse = random(2, 5, 12)
    copied = torch.cat((VIDEO, mouse[:, :, None].expand(-1, -1, 3, -1)), dim=-1)
    joined = torch.nn.functional.linear(
        copied, torch.cat((module.video_in.weight, module.mouse_in.weight), dim=1), module.video_in.bias
    )
    torch.testing.assert_close(joined, module.video_in(VIDEO) + module.mouse_in(mouse)[:, :, None])


def test_places_do_not_see_each_other(awake: Callable[..., ActionControl]) -> None:
    other = VIDEO.clone()
    other[:, :, 1] += 1
    changed = residual(awake(), ACTIONS, other) != residual(awake(), ACTIONS)
    assert changed.any(3).any(1).any(0).tolist() == [False, True, False]


def test_the_order_of_past_frames_matters() -> None:
    """Attention alone would not know which of two earlier frames came first; positions tell it."""
    torch.manual_seed(0)
    module, mouse, swapped = MouseAttention(32, 2, 8, 4), random(2, NUM_FRAMES, 12), [0, 2, 1, 3, 4]
    torch.nn.init.normal_(module.to_out.weight)
    seen, other = module(VIDEO, mouse)[:, 3:], module(VIDEO[:, swapped], mouse[:, swapped])[:, 3:]
    assert not torch.allclose(seen, other, atol=1e-2)


def test_permuted_keys_with_permuted_weights_are_the_same_keys(awake: Callable[..., ActionControl]) -> None:
    control, permuted, order = awake(), awake(), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    permuted.blocks[0].keys.key_in.weight.data = control.blocks[0].keys.key_in.weight.data[:, order]
    swapped = dataclasses.replace(ACTIONS, keys=ACTIONS.keys[..., order])
    torch.testing.assert_close(residual(permuted, swapped), residual(control, ACTIONS), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(residual(control, swapped), residual(control, ACTIONS), atol=1e-2)


def test_the_order_of_keys_within_a_window_matters(awake: Callable[..., ActionControl]) -> None:
    swapped = dataclasses.replace(ACTIONS, keys=ACTIONS.keys.flip(1))
    assert not torch.allclose(residual(awake(), swapped)[:, 1:], residual(awake(), ACTIONS)[:, 1:], atol=1e-2)


def test_a_tiny_module_learns_to_obey_and_swapped_actions_bring_the_error_back() -> None:
    """What to add: the turn of the frame's own group along one direction; another one while the first key is down."""
    torch.manual_seed(0)
    control = ActionControl(width=32, num_layers=1, head_dim=16, compression=COMPRESSION, window=WINDOW)
    turn_way, key_way = random(2, 32, seed=3).unbind()

    def wanted(actions: Actions) -> Tensor:
        turn = actions.mouse[..., 1].unflatten(1, (-1, COMPRESSION)).sum(2) / 15
        pressed = actions.keys[:, COMPRESSION - 1 :: COMPRESSION, 0].float()
        steps = turn[..., None] * turn_way + pressed[..., None] * key_way
        return torch.nn.functional.pad(steps, (0, 0, 1, 0))[:, :, None].expand(-1, -1, 3, -1)

    def error(actions: Actions, told: Actions) -> Tensor:
        video = random(len(told.keys), NUM_FRAMES, 3, 32, seed=9)
        return (residual(control, told, video) - wanted(actions)).square().mean()

    optimizer = torch.optim.AdamW(control.parameters(), lr=1e-2)
    for step in range(150):
        actions = some_actions(batch=16, seed=100 + step)
        optimizer.zero_grad()
        error(actions, actions).backward()
        optimizer.step()
    unseen, others = some_actions(batch=16, seed=1), some_actions(batch=16, seed=2)
    with torch.no_grad():
        left, untold = float(error(unseen, unseen)), float(wanted(unseen).square().mean())
        assert left < 0.05 * untold
        assert float(error(unseen, others)) > untold


def test_it_is_saved_alone_and_loads_the_same(awake: Callable[..., ActionControl], tmp_path: Path) -> None:
    control = awake()
    control.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    loaded = ActionControl.from_pretrained(tmp_path)
    torch.testing.assert_close(residual(loaded, ACTIONS), residual(control, ACTIONS), rtol=1e-6, atol=1e-6)


def test_it_runs_in_low_precision(awake: Callable[..., ActionControl]) -> None:
    control = awake().bfloat16()
    low = residual(control, ACTIONS, VIDEO.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), residual(awake(), ACTIONS), rtol=0.1, atol=0.5)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in production, where nobody checks annotations before the module sees its arguments."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ACTIONS.keys.float()}, r"keys must be shaped \[B, A, K\] of torch.bool, got .* of torch.float32"),
        ({"keys": ACTIONS.keys[0]}, r"keys must be shaped \[B, A, K\] .* got \[8, 7\]"),
        (
            {"mouse": ACTIONS.mouse[:, 1:]},
            r"mouse must be shaped \[2, 8, 2\], as keys are, got \[2, 7, 2\]",
        ),
        (
            {"mouse": ACTIONS.mouse.index_fill(1, torch.tensor([3]), torch.nan)},
            r"must be finite, got nan at \[0, 3, 0\]",
        ),
        ({"known": torch.ones(2, 3, dtype=torch.bool)}, r"known must be shaped \[2, 8\] .* got \[2, 3\] of torch.bool"),
    ],
)
def test_wrong_actions_are_named(unchecked: None, change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ACTIONS, **change)


def test_actions_that_do_not_fit_the_film_are_named(unchecked: None, awake: Callable[..., ActionControl]) -> None:
    control = awake()
    with pytest.raises(ValueError, match=r"must hold 2 x 3 actions, 2 for each of 4 latent frames but .*, got 8"):
        control.group(ACTIONS, 4)
    with pytest.raises(ValueError, match=r"keys must be shaped \[B, A, 7\], got \[2, 8, 6\]"):
        control.group(some_actions(num_keys=6), NUM_FRAMES)
    grouped = control.group(ACTIONS, NUM_FRAMES)
    with pytest.raises(ValueError, match=r"video must be shaped \[2, 5, P, 32\], got \[2, 4, 3, 32\]"):
        control(VIDEO[:, :4], grouped, 0)
    with pytest.raises(ValueError, match=r"layer must lie in \[0, 1\), got 1"):
        control(VIDEO, grouped, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"window": 0}, "window must be at least 1, got 0"), ({"head_dim": 5}, "head_dim must be even, .* got 5")],
)
def test_a_wrong_setting_is_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActionControl(width=32, num_layers=1, **settings)
