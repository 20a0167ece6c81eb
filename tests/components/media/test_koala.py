"""Known answers of Koala-36M's released detector."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.planes import planes_of
from telecine_components.media.shots.koala import (
    KoalaFinder,
    colour_correlation,
    similarity,
    ssim,
    transition_pairs,
)

ALIKE = 2.88095
Pixels = npt.NDArray[np.uint8]


def _scores(num_pairs: int = 100, level: float = ALIKE, **at: float) -> npt.NDArray[np.float64]:
    scores = np.full(num_pairs, level)
    for pair, score in at.items():
        scores[int(pair.removeprefix("pair_"))] = score
    return scores


def _found(scores: npt.NDArray[np.float64]) -> list[int]:
    return [int(pair) for pair in np.flatnonzero(transition_pairs(scores))]


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        (_scores(), []),
        (_scores(pair_50=-1.0), [50]),
        (_scores(pair_50=-1.0, pair_54=-1.0), [50, 54]),
        (_scores(level=0.5), []),
        (_scores(level=0.5, pair_60=-0.1), [60]),
        (_scores(pair_50=1.0), []),
        (_scores(8), []),
        (_scores(9), []),
    ],
    ids=["still", "cut", "two cuts", "fast motion", "cut in fast motion", "mild dip", "8 pairs", "9 pairs"],
)
def test_the_rule_gives_its_known_answers(scores: npt.NDArray[np.float64], pairs: list[int]) -> None:
    assert _found(scores) == pairs


def test_a_fade_is_found_at_its_beginning() -> None:
    fade = _scores(**{f"pair_{pair}": 0.3 for pair in range(48, 54)})
    # Pair 50 lies on the rule's bound exactly, so rounding decides.
    assert _found(fade) in ([49], [49, 50])


def test_the_score_gives_its_known_answers() -> None:
    assert similarity(1.0, 1.0) == pytest.approx(ALIKE, abs=1e-5)
    assert similarity(1.0, 0.23218) == pytest.approx(0.0, abs=1e-4)
    assert similarity(0.37572, 1.0) == pytest.approx(0.0, abs=1e-4)


def test_colour_and_structure_are_one_for_equal_pictures_and_fall_with_change() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    histogram = np.arange(762, dtype=np.float32)
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert abs(ssim(picture, picture[::-1].copy())) < 0.05
    assert colour_correlation(histogram, histogram) == pytest.approx(1.0)
    assert colour_correlation(histogram, histogram[::-1].copy()) == pytest.approx(-1.0)


def test_structural_similarity_is_that_of_its_formula() -> None:
    # One window of 7x7: the formula of Wang et al. (2004) with sample covariance, written out.
    draw = np.random.default_rng(1)
    x, y = (draw.integers(0, 256, (7, 7)).astype(np.uint8) for _ in range(2))
    mx, my, vx, vy = x.mean(), y.mean(), x.var(ddof=1), y.var(ddof=1)
    cov = np.cov(x.ravel(), y.ravel())[0, 1]
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y) == pytest.approx(expected)


def test_a_cut_ends_a_shot(write_video: Callable[..., Path], ramp: Pixels) -> None:
    frames = np.concatenate([ramp, ramp[::-1, ::-1, :, ::-1]])
    finder = KoalaFinder()
    with open_video(write_video("a.mp4", frames)) as video:
        for _, frame in video.frames():
            finder.look_at(planes_of(frame))
    shots = finder.shots()
    assert [(shots[0].start, shots[-1].end, shots[-1].start, shots[0].ends_with)] == [(0, 48, 24, "cut")]
