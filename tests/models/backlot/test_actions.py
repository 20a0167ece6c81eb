"""Keys and mouse movements drive the camera, exactly."""

from typing import Any

import numpy as np
import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.actions import (
    GRAVITY_M_PER_S2,
    JUMP_M_PER_S,
    KEYS,
    SNEAK_DROP_M,
    WALK_M_PER_S,
    Actions,
    draw_actions,
)
from telecine_models.backlot.camera import EYE_HEIGHT_M

FPS = 8
STEP_M = WALK_M_PER_S / FPS


def pressed(*names: str, num: int = 4, mouse: tuple[float, float] = (0.0, 0.0)) -> Actions:
    """The same keys and the same mouse movement again and again."""
    keys = np.tile([np.uint8(key in names) for key in KEYS], (num, 1))
    return Actions(keys, np.tile(mouse, (num, 1)))


def played(actions: Actions, **options: Any) -> Clip:
    return clip(0, num_frames=len(actions) + 1, fps=FPS, width_px=32, height_px=24, actions=actions, **options)


def eyes(film: Clip) -> np.ndarray:
    return -np.einsum("fji,fj->fi", film.poses[:, :, :3], film.poses[:, :, 3])


def relative_deg(film: Clip) -> np.ndarray:
    """How much each pose is turned against the one before."""
    turns = film.poses[1:, :, :3] @ np.swapaxes(film.poses[:-1, :, :3], 1, 2)
    return np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))


@pytest.mark.parametrize(
    ("names", "way", "ratio"),
    [
        ("W", (0, 0, 1), 1.0),
        ("S", (0, 0, -1), 1.0),
        ("A", (-1, 0, 0), 1.0),
        ("D", (1, 0, 0), 1.0),
        ("WD", (0.5**0.5, 0, 0.5**0.5), 1.0),
        (("W", "ctrl"), (0, 0, 1), 1.5),
        ((), (0, 0, 0), 1.0),
    ],
)
def test_each_key_moves_the_camera_by_the_exact_distance(names: Any, way: Any, ratio: float) -> None:
    steps = np.diff(eyes(played(pressed(*names))), axis=0)
    assert np.allclose(steps, STEP_M * ratio * np.array(way), atol=1e-12)


def test_sneaking_is_slow_and_low() -> None:
    places = eyes(played(pressed("W", "shift")))
    assert np.allclose(np.diff(places[:, 2]), STEP_M / 2)
    assert np.allclose(places[1:, 1], -EYE_HEIGHT_M + SNEAK_DROP_M)


@pytest.mark.parametrize("mouse", [(5.0, 0.0), (-12.5, 0.0), (0.0, 4.0), (0.0, -3.25)])
def test_a_mouse_movement_turns_the_view_by_exactly_as_many_degrees(mouse: tuple[float, float]) -> None:
    film = played(pressed(mouse=mouse))
    assert np.allclose(relative_deg(film), max(np.abs(mouse)), atol=1e-9)
    forward = film.poses[-1, 2, :3]
    assert np.sign(forward[:2]) == pytest.approx(np.sign(mouse))


def test_forward_is_where_the_view_looks() -> None:
    places = eyes(played(pressed("W", mouse=(90.0, 0.0), num=3)))
    assert np.allclose(np.diff(places, axis=0), STEP_M * np.array([(1, 0, 0), (0, 0, -1), (-1, 0, 0)]), atol=1e-12)


def test_the_right_is_a_quarter_turn_from_where_the_view_looks() -> None:
    places = eyes(played(pressed("D", mouse=(90.0, 0.0), num=3)))
    assert np.allclose(np.diff(places, axis=0), STEP_M * np.array([(0, 0, -1), (-1, 0, 0), (0, 0, 1)]), atol=1e-12)


def test_looking_up_does_not_lift_the_walker() -> None:
    assert np.allclose(eyes(played(pressed("W", mouse=(0.0, -8.0))))[:, 1], -EYE_HEIGHT_M)


def test_a_jump_is_a_throw_that_ends_on_the_ground_and_cannot_be_begun_in_the_air() -> None:
    film = played(pressed("space", num=12))
    heights = -eyes(film)[:, 1] - EYE_HEIGHT_M
    times_s = np.arange(1, 6) / FPS
    assert np.allclose(heights[1:6], JUMP_M_PER_S * times_s - GRAVITY_M_PER_S2 / 2 * times_s**2)
    assert min(heights) == 0 and heights[6] == 0
    invalid = [row["jump_invalid"] for row in film.truth["actions"]]
    assert invalid == [False, *[True] * 5] * 2
    landings = [event["time_s"] for event in film.truth["events"] if event["kind"] == "landing"]
    assert landings == pytest.approx([0.6524, 0.75 + 0.6524], abs=1e-4)


def test_a_wall_stops_the_player_and_the_truth_says_so() -> None:
    film = played(pressed("W", num=60))
    stopped = np.array([row["collision"] for row in film.truth["actions"]])
    places = eyes(film)[:, 2]
    assert places.max() == pytest.approx(7.5)
    assert np.array_equal(stopped, np.diff(places) < STEP_M - 1e-9)
    assert 0 < stopped.sum() < 60


def test_actions_that_were_given_are_kept_to_the_last_digit() -> None:
    given = draw_actions(np.random.default_rng(5), 11, FPS)
    film = played(given, style="neon game")
    assert film.actions is given
    rows = film.truth["actions"]
    assert [(row["yaw_delta_deg"], row["pitch_delta_deg"]) for row in rows] == [tuple(d) for d in given.mouse_deg]
    for name in ("ws", "ad", "scs"):
        assert [row[name] for row in rows] == given.choice(name).tolist()
    assert rows[-1]["yaw_deg"] == pytest.approx(given.mouse_deg[:, 0].sum(), abs=1e-3)
    assert np.allclose([row["position_m"] for row in rows], eyes(film)[1:], atol=1e-4)


def test_keys_have_the_numbers_of_gf_minecraft() -> None:
    keys = np.eye(7, dtype=np.uint8)
    actions = Actions(keys, np.zeros((7, 2)))
    assert actions.choice("ws").tolist() == [1, 0, 2, 0, 0, 0, 0]
    assert actions.choice("ad").tolist() == [0, 1, 0, 2, 0, 0, 0]
    assert actions.choice("scs").tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_random_actions_favour_no_key() -> None:
    drawn = [draw_actions(np.random.default_rng(seed), 95, FPS) for seed in range(60)]
    for name, num_values in (("ws", 3), ("ad", 3), ("scs", 4)):
        counts = np.array([np.bincount(each.choice(name), minlength=num_values) for each in drawn])
        # Within one clip no value is held more than one hold oftener than another.
        assert np.ptp(counts, axis=1).max() <= 4
        assert np.allclose(counts.sum(axis=0) / counts.sum(), 1 / num_values, atol=0.01)
    mouse = np.concatenate([each.mouse_deg for each in drawn])
    assert (np.abs(mouse.mean(axis=0)) < 0.05 * mouse.std(axis=0) + 0.1).all()
    assert len({tuple(row) for each in drawn for row in each.keys.tolist()}) == 3 * 3 * 4


def test_a_turn_to_the_right_moves_what_is_seen_to_the_left() -> None:
    film = played(pressed(mouse=(3.0, 0.0)))
    x = np.array([each["centers_px"] for each in film.truth["objects"][:2]])[..., 0]
    assert (np.diff(x, axis=1) < 0).all()


@pytest.mark.parametrize("names", ["WS", "AD", ("space", "shift"), ("shift", "ctrl")])
def test_keys_that_exclude_each_other_are_refused_by_name(names: Any) -> None:
    with pytest.raises(ValueError, match=f"{names[0]} and .*exclude each other, got several in 0"):
        pressed(*names)


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"keys must be \[A, 7\] and mouse_deg \[A, 2\], got \(4, 6\)"):
        Actions(np.zeros((4, 6), np.uint8), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="keys must be 0 or 1, got 2"):
        Actions(np.full((4, 7), 2, np.uint8), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="mouse_deg must be finite"):
        Actions(np.zeros((4, 7), np.uint8), np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="one fewer than the 9 frames, got 4"):
        clip(0, num_frames=9, fps=8, width_px=32, height_px=32, actions=pressed("W"))
    with pytest.raises(ValueError, match="camera must be None where actions move it, got 'pan left'"):
        clip(0, num_frames=5, fps=8, width_px=32, height_px=32, actions=pressed("W"), camera="pan left")
