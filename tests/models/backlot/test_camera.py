"""Poses and intrinsics, against answers that are known."""

import numpy as np
import pytest

from telecine_models.backlot.camera import CAMERAS, EYE_HEIGHT_M, Camera, Views, draw_move, move_views, poses, project
from telecine_models.backlot.scene import Stage

STAGE = Stage(width_px=160, height_px=120, fps=12)
NUM_FRAMES = 9
PIVOT_M = 2.5


def moved(name: Camera) -> tuple[float, Views]:
    move = draw_move(np.random.default_rng(0), name)
    return move.amount, move_views(move, STAGE, NUM_FRAMES, PIVOT_M)


def turned_deg(views: Views) -> float:
    """By how much the last pose is turned against the first."""
    first, last = views.poses[0, :, :3], views.poses[-1, :, :3]
    return float(np.degrees(np.arccos(np.clip((np.trace(first @ last.T) - 1) / 2, -1, 1))))


def seen(point_m: tuple[float, float, float], views: Views, frame: int) -> np.ndarray:
    return project(np.tile(point_m, (1, NUM_FRAMES, 1)), views)[0][0, frame]


@pytest.mark.parametrize("name", CAMERAS)
def test_every_pose_is_a_rotation_and_the_first_looks_forward_from_eye_height(name: Camera) -> None:
    _, views = moved(name)
    rotations = views.poses[:, :, :3]
    assert np.allclose(rotations @ np.swapaxes(rotations, 1, 2), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.allclose(rotations[0], np.eye(3))
    assert np.allclose(views.eyes_m[0], (0, -EYE_HEIGHT_M, 0))
    assert views.are_still == (name == "static")


@pytest.mark.parametrize("kind", ["pan", "tilt", "roll", "orbit"])
def test_a_turn_is_as_many_degrees_as_it_says(kind: str) -> None:
    for name in (name for name in CAMERAS if name.startswith(kind)):
        amount, views = moved(name)
        assert turned_deg(views) == pytest.approx(amount, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "way"),
    [("dolly in", (0, 0, 1)), ("dolly out", (0, 0, -1)), ("truck left", (-1, 0, 0)), ("truck right", (1, 0, 0))],
)
def test_a_way_is_as_many_metres_as_it_says(name: Camera, way: tuple[int, int, int]) -> None:
    amount, views = moved(name)
    assert np.allclose(views.eyes_m[-1] - views.eyes_m[0], amount * np.array(way))
    assert turned_deg(views) == 0


def test_a_pan_to_the_right_moves_what_is_ahead_to_the_left_by_the_tangent() -> None:
    amount, views = moved("pan right")
    x, y = seen((0, -EYE_HEIGHT_M, 5), views, -1)
    assert (x, y) == pytest.approx((80 - 120 * np.tan(np.radians(amount)), 60))


def test_a_tilt_down_moves_what_is_ahead_up() -> None:
    amount, views = moved("tilt down")
    assert seen((0, -EYE_HEIGHT_M, 5), views, -1) == pytest.approx((80, 60 - 120 * np.tan(np.radians(amount))))


def test_a_camera_that_rolls_clockwise_turns_the_picture_counterclockwise_about_its_middle() -> None:
    amount, views = moved("roll clockwise")
    angle = np.radians(amount)
    right = seen((1, -EYE_HEIGHT_M, 4), views, -1)
    assert right == pytest.approx((80 + 30 * np.cos(angle), 60 - 30 * np.sin(angle)))


def test_a_zoom_scales_the_picture_and_leaves_the_pose() -> None:
    for name, power in (("zoom in", 1), ("zoom out", -1)):
        amount, views = moved(name)
        assert (views.poses == views.poses[0]).all()
        assert seen((1, -EYE_HEIGHT_M, 4), views, -1) == pytest.approx((80 + 30 * amount**power, 60))


def test_an_orbit_keeps_its_pivot_in_the_middle_and_at_its_distance() -> None:
    for name, side in (("orbit left", -1), ("orbit right", 1)):
        _, views = moved(name)
        pixels, depths = project(np.tile((0, -EYE_HEIGHT_M, PIVOT_M), (1, NUM_FRAMES, 1)), views)
        assert np.allclose(pixels, (80, 60))
        assert np.allclose(depths, PIVOT_M)
        assert np.sign(views.eyes_m[-1, 0]) == side


def test_a_camera_rolls_before_it_pitches_and_pitches_before_it_turns() -> None:
    angles = np.radians((30.0, 20.0, 10.0))
    eye = np.array([[1.0, -2.0, 3.0]])
    all_at_once = poses(eye, *(angle[None] for angle in angles))[0]
    zero = np.zeros(1)
    one_by_one = [
        poses(eye, *(angle[None] if index == axis else zero for index, angle in enumerate(angles)))[0, :, :3]
        for axis in range(3)
    ]
    assert np.allclose(all_at_once[:, :3], one_by_one[2] @ one_by_one[1] @ one_by_one[0])
    assert np.allclose(all_at_once[:, :3] @ eye[0] + all_at_once[:, 3], 0)
