"""How a clip moves: known displacements, and what must not depend on size, rate or contrast."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.measures import movement

Pixels = npt.NDArray[np.uint8]
FPS = 24.0


@pytest.fixture(scope="module")
def slide() -> Callable[..., Pixels]:
    """Draw blobs on a large canvas, seen through a window that moves: lumas [F, 54, 96]."""
    rng = np.random.default_rng(0)
    canvas = np.full((1200, 2400), 90, np.uint8)
    for _ in range(900):
        place = int(rng.integers(2400)), int(rng.integers(1200))
        cv2.circle(canvas, place, int(rng.integers(10, 50)), int(rng.integers(256)), -1, cv2.LINE_AA)

    def draw(right: npt.NDArray[np.float64], down: npt.NDArray[np.float64] | None = None) -> Pixels:
        """``right`` and ``down`` are places in shares of the window's size."""
        places = np.stack([right, np.zeros_like(right) if down is None else down], axis=1)
        lefts = (800 + 800 * places[:, 0]).round().astype(int)
        tops = (400 + 450 * places[:, 1]).round().astype(int)
        windows = [canvas[top : top + 450, left : left + 800] for left, top in zip(lefts, tops, strict=True)]
        return np.stack([cv2.resize(window, (96, 54), interpolation=cv2.INTER_AREA) for window in windows])

    return draw


@pytest.mark.parametrize("step", [0.0, 0.0025, 0.01, 0.08])
def test_the_displacement_of_the_whole_picture_is_found(slide: Callable[..., Pixels], step: float) -> None:
    path = np.arange(8) * step
    found = np.median(movement.displacement(slide(path, path / 2)), axis=0)
    # A window that moves right shows things that move left.
    assert found == pytest.approx([-step, -step / 2], abs=0.001 + step / 10)


def test_one_thing_that_moves_is_not_the_camera(slide: Callable[..., Pixels]) -> None:
    lumas = slide(np.zeros(8)).copy()
    for index, luma in enumerate(lumas):
        luma[20:40, 10 + 3 * index : 30 + 3 * index] = 230
    assert np.abs(movement.displacement(lumas)).max() < 0.002
    assert movement.flow(lumas).min() > 0.0005


def test_motion_is_in_frame_sizes_per_second(slide: Callable[..., Pixels]) -> None:
    def motion(path: npt.NDArray[np.float64]) -> float:
        lumas = slide(path)
        return movement.motion(movement.flow(lumas), movement.displacement(lumas), (len(path) - 1) / FPS)

    assert motion(np.zeros(24)) == 0
    for speed in (0.1, 0.5, 2.0):
        assert motion(np.arange(13) / FPS * speed) == pytest.approx(speed, rel=0.35)


def test_motion_does_not_depend_on_contrast(slide: Callable[..., Pixels]) -> None:
    lumas = slide(np.arange(8) * 0.005)
    assert movement.flow(lumas // 2 + 30).mean() == pytest.approx(movement.flow(lumas).mean(), rel=0.1)


def test_a_cut_to_black_is_no_endless_motion() -> None:
    lumas = np.zeros((2, 54, 96), np.uint8)
    lumas[1] = 200
    assert movement.flow(lumas)[0] <= movement.REACH_RATIO


def test_a_pan_is_steady_and_a_shake_is_not(slide: Callable[..., Pixels]) -> None:
    time_s = np.arange(48) / FPS
    rng = np.random.default_rng(0)

    def stability(right: npt.NDArray[np.float64]) -> float:
        return movement.stability(movement.displacement(slide(right)), FPS)

    smooth = [np.zeros(48), 0.3 * time_s, 0.15 * (1 - np.cos(np.pi * time_s / 2))]
    assert min(stability(path) for path in smooth) > 0.7
    shaken = [stability(0.3 * time_s + rng.uniform(-reach, reach, 48)) for reach in (0.005, 0.02, 0.08)]
    assert shaken == sorted(shaken, reverse=True)
    assert shaken[1] < 0.5
    assert shaken[-1] < 0.05


def test_what_an_encoder_refines_in_a_still_is_no_change() -> None:
    still = np.full((24, 54, 96), 120, np.uint8) + np.random.default_rng(0).integers(0, 4, (24, 54, 96), np.uint8)
    assert movement.freeze(movement.changed(still), FPS) == 1


def test_a_standstill_is_its_share_of_the_time_and_drawing_on_twos_is_none(slide: Callable[..., Pixels]) -> None:
    moving = np.arange(48) * 0.01
    stopped = np.concatenate([moving[:24], np.full(24, moving[23])])
    twos = np.repeat(moving[::2], 2)
    shares = [movement.freeze(movement.changed(slide(path)), FPS) for path in (moving, twos, stopped, stopped * 0)]
    assert shares == pytest.approx([0, 0, 24 / 47, 1])


def test_flicker_is_jumps_of_brightness_and_no_fade() -> None:
    fade, strobe = np.linspace(0, 1, 48), 0.5 + 0.2 * (np.arange(48) % 2)
    assert movement.flicker(fade, FPS) == pytest.approx(0, abs=1e-9)
    assert movement.flicker(strobe, FPS) > 0.9
    assert movement.flicker(0.5 + 0.01 * (np.arange(48) % 2), FPS) == pytest.approx(0.05, rel=0.2)


def test_a_frame_or_two_have_no_movement_to_speak_of() -> None:
    none, one = np.zeros(0), np.zeros((1, 2))
    assert movement.motion(none, np.zeros((0, 2)), 0.0) == 0
    assert movement.freeze(none, 0.0) == 0
    assert (movement.stability(one, FPS), movement.flicker(np.zeros(2), FPS)) == (1.0, 0.0)
