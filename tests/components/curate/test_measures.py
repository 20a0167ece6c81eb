from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.curate.split import measures, similarity

Pixels = npt.NDArray[np.uint8]


def _blurred(grey: Pixels, times: int) -> Pixels:
    soft = grey.astype(np.float64)
    for _ in range(times):
        soft = (np.roll(soft, 1, 0) + 2 * soft + np.roll(soft, -1, 0)) / 4
        soft = (np.roll(soft, 1, 1) + 2 * soft + np.roll(soft, -1, 1)) / 4
    return soft.astype(np.uint8)


def _histograms(frames: Pixels) -> npt.NDArray[np.int64]:
    counts = [[np.bincount(frame[..., channel].ravel(), minlength=256) for channel in range(3)] for frame in frames]
    return np.array(counts)


def test_equal_frames_score_as_published(scene: Callable[..., Pixels]) -> None:
    twice = scene(1, 1).repeat(2, axis=0)
    colour = similarity.colour_correlation(_histograms(twice))
    structure = similarity.structure_similarity(similarity.with_edges(twice[..., 1]))
    assert similarity.similarity(colour, structure) == pytest.approx([2.88095], abs=1e-4)


def test_the_two_halves_of_the_score_cross_zero_where_published() -> None:
    one = np.ones(1)
    assert similarity.similarity(one, np.array([0.23218])) == pytest.approx([0.0], abs=1e-4)
    assert similarity.similarity(np.array([0.37572]), one) == pytest.approx([0.0], abs=1e-4)


def test_another_scene_scores_below_zero(scene: Callable[..., Pixels]) -> None:
    pair = np.concatenate([scene(1, 1), scene(2, 1)])
    colour = similarity.colour_correlation(_histograms(pair))
    structure = similarity.structure_similarity(similarity.with_edges(pair[..., 1]))
    assert similarity.similarity(colour, structure)[0] < 0


def test_black_frames_have_the_colours_of_black_frames_only() -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[2] = 90
    assert similarity.colour_correlation(_histograms(frames)).tolist() == [1.0, 0.0]


def test_ssim_agrees_with_its_definition_in_one_window() -> None:
    pair = np.random.default_rng(0).integers(0, 256, (2, 7, 7), np.uint8)
    x, y = pair.reshape(2, -1).astype(float)
    covariance = np.cov(x, y)
    c1, c2 = similarity.SSIM_C1, similarity.SSIM_C2
    top = (2 * x.mean() * y.mean() + c1) * (2 * covariance[0, 1] + c2)
    bottom = (x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
    assert similarity.structure_similarity(pair) == pytest.approx([top / bottom], rel=1e-4)


def test_edges_are_drawn_thin_and_white() -> None:
    grey = np.full((1, 32, 32), 40, np.uint8)
    grey[:, :, 16:] = 160
    edges = similarity.with_edges(grey)[0] == 255
    assert edges.any(axis=1).all()
    assert edges.sum(axis=1).max() == 1


def test_motion_is_the_share_of_the_frame_moved(scene: Callable[..., Pixels]) -> None:
    greys = [scene(5, 8, step)[..., 1] for step in (0.0, 1.0, 2.0)]
    still, slow, fast = (float(measures.motion(grey).mean()) for grey in greys)
    assert still == 0
    assert fast == pytest.approx(2 * slow, rel=0.25)
    assert slow == pytest.approx(1 / 96, rel=0.5)


def test_motion_does_not_depend_on_contrast_or_size(scene: Callable[..., Pixels]) -> None:
    greys = scene(5, 8, 2.0)[..., 1]
    reference = measures.motion(greys).mean()
    assert measures.motion(greys // 2 + 30).mean() == pytest.approx(reference, rel=0.1)
    assert measures.motion(greys.repeat(2, axis=1).repeat(2, axis=2)).mean() == pytest.approx(reference, rel=0.1)


def test_blur_grows_as_a_picture_is_blurred(scene: Callable[..., Pixels]) -> None:
    grey = scene(5, 1)[0, ..., 1]
    blurs = [measures.blur(_blurred(grey, times)) for times in (0, 2, 8, 32)]
    assert blurs == sorted(blurs)
    assert 0 <= blurs[0] < 0.35 < 0.5 < blurs[-1] <= 1
    assert measures.blur(np.full((32, 32), 7, np.uint8)) == 1


def test_exposure_tells_a_night_with_lights_from_an_underexposed_day() -> None:
    night, dim, bright = np.zeros((3, 256), np.int64)
    night[0], night[180] = 960, 40
    dim[8], dim[24] = 500, 500
    bright[200], bright[255] = 300, 700
    values = [measures.exposure(histogram) for histogram in (dim, night, bright)]
    assert values == pytest.approx([16 / 255, 90 / 255, 227.5 / 255])
