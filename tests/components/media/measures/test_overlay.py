"""What was laid over a clip."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.measures.overlay import overlay

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def passing() -> Pixels:
    """Eight pictures [8, 160, 284] of discs that pass by."""
    rng = np.random.default_rng(0)
    canvas = np.full((160, 1000), 90, np.uint8)
    for _ in range(150):
        place = int(rng.integers(1000)), int(rng.integers(160))
        cv2.circle(canvas, place, int(rng.integers(5, 25)), int(rng.integers(30, 200)), -1, cv2.LINE_AA)
    return np.stack([canvas[:, left : left + 284] for left in range(0, 560, 70)])


def _written(lumas: Pixels, text: str, place: tuple[int, int], size: float = 0.6) -> Pixels:
    written = lumas.copy()
    for luma in written:
        for level, thickness in ((10, 4), (250, 2)):
            cv2.putText(luma, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, level, thickness, cv2.LINE_AA)
    return written


def test_what_passes_by_is_no_overlay(passing: Pixels) -> None:
    found = overlay(passing)
    assert (found.text, found.logo) == (0, 0)


def test_a_subtitle_is_text_and_the_larger_the_more(passing: Pixels) -> None:
    small = overlay(_written(passing, "where were you", (70, 140), 0.5))
    large = overlay(_written(passing, "where were you", (10, 130), 1.0))
    assert 0.01 < small.text < large.text < 0.3
    assert small.logo < 0.1


@pytest.mark.parametrize("place", [(5, 20), (240, 20), (5, 150), (240, 150)])
def test_a_mark_in_any_corner_is_a_logo(passing: Pixels, place: tuple[int, int]) -> None:
    found = overlay(_written(passing, "TV", place))
    assert found.logo > 0.4
    assert found.text == 0


def test_a_sign_that_passes_by_is_no_overlay(passing: Pixels) -> None:
    signs = [_written(luma[None], "SALE", (200 - 25 * step, 80))[0] for step, luma in enumerate(passing)]
    assert overlay(np.stack(signs)).text == 0


def test_what_is_there_for_half_of_the_time_is_not_steady(passing: Pixels) -> None:
    blinking = passing.copy()
    blinking[::2] = _written(passing[::2], "WATCH", (90, 90), 1.0)
    assert overlay(blinking).text == 0


def test_edges_of_a_still_scene_are_none(passing: Pixels) -> None:
    faint = (90 + 0.8 * (passing.astype(np.float32) - 90)).astype(np.uint8)
    assert overlay(np.repeat(faint[:1], 8, axis=0)).text == 0


def test_a_still_scene_of_soft_edges_has_none_and_a_title_over_it_is_text(passing: Pixels) -> None:
    still = np.repeat(cv2.GaussianBlur(passing[0], (0, 0), 1.5)[None], 8, axis=0)
    assert overlay(still).text == 0
    assert overlay(_written(still, "THE END", (80, 90), 1.0)).text > 0.01


def test_a_window_frame_is_no_text(passing: Pixels) -> None:
    framed = passing.copy()
    framed[:, :, 90:96] = 240
    framed[:, :, 190:196] = 240
    assert overlay(framed).text == 0
