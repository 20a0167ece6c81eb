"""How a picture looks: known answers."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.measures import picture

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def blobs() -> Pixels:
    """Discs on a ramp, [360, 640]."""
    rng = np.random.default_rng(0)
    canvas = np.tile(np.linspace(60, 160, 640).astype(np.uint8), (360, 1))
    for _ in range(60):
        place = int(rng.integers(640)), int(rng.integers(360))
        cv2.circle(canvas, place, int(rng.integers(8, 50)), int(rng.integers(30, 220)), -1, cv2.LINE_AA)
    return canvas


def _grain(luma: Pixels, sigma: float) -> Pixels:
    grain = np.random.default_rng(1).normal(0, sigma, luma.shape)
    return np.clip(np.rint(luma + grain), 0, 255).astype(np.uint8)


def _blocks(luma: Pixels, side: int, offset: int) -> Pixels:
    """Squares of that side replaced by their means."""
    padded = np.pad(luma, ((offset, side), (offset, side)), mode="edge")
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    cut = padded[: rows * side, : columns * side].reshape(rows, side, columns, side)
    means = cut.mean(axis=(1, 3)).round().astype(np.uint8).repeat(side, 0).repeat(side, 1)
    return means[offset : offset + luma.shape[0], offset : offset + luma.shape[1]]


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0, 30.0])
def test_noise_is_the_deviation_of_the_grain(blobs: Pixels, sigma: float) -> None:
    assert picture.noise(_grain(blobs, sigma)) * 255 == pytest.approx(sigma, rel=0.15)


def test_texture_edges_black_and_white_are_no_noise(blobs: Pixels) -> None:
    assert picture.noise(blobs) * 255 < 0.3
    assert picture.noise(np.zeros((90, 160), np.uint8)) == 0
    assert picture.noise(_grain(np.full((90, 160), 255, np.uint8), 9)) == 0


def test_texture_over_half_of_the_picture_is_no_noise(blobs: Pixels) -> None:
    noisy = _grain(blobs, 3)
    noisy[:, :320] = np.random.default_rng(2).integers(60, 160, (360, 320))
    assert picture.noise(noisy) * 255 == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(("side", "offset"), [(8, 0), (8, 5), (16, 3), (45, 0)])
def test_blockiness_is_how_far_blocks_went_on_any_grid(blobs: Pixels, side: int, offset: int) -> None:
    blocks, grainy = _blocks(blobs, side, offset), _grain(blobs, 2)
    mixed = [cv2.addWeighted(grainy, 1 - degree, blocks, degree, 0) for degree in (0.3, 0.6, 1.0)]
    assert picture.blockiness(blobs) < 0.05
    assert [picture.blockiness(each) for each in mixed] == pytest.approx([0.3, 0.6, 1.0], abs=0.1)


def test_blocks_of_four_pixels_are_found_below_some_detail(blobs: Pixels) -> None:
    mixed = cv2.addWeighted(_grain(blobs, 2), 0.4, _blocks(blobs, 4, 0), 0.6, 0)
    assert picture.blockiness(mixed) == pytest.approx(0.6, abs=0.1)


def test_blocks_are_found_after_scaling(blobs: Pixels) -> None:
    """A grid of no whole period is found by every third of its borders."""
    for scale, least in ((1.5, 0.4), (4 / 3, 0.1)):
        larger = cv2.resize(_blocks(blobs, 8, 0), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        clean = cv2.resize(blobs, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        assert picture.blockiness(clean) < 0.05 < least < picture.blockiness(larger)


def test_a_fence_and_grain_are_no_blocks(blobs: Pixels) -> None:
    fence = blobs.copy()
    fence[:, ::16] = 20
    assert picture.blockiness(fence) < 0.1
    assert picture.blockiness(_grain(blobs, 20)) < 0.1
    assert picture.blockiness(np.zeros((12, 12), np.uint8)) == 0


def test_blur_grows_as_a_picture_is_blurred(blobs: Pixels) -> None:
    blurs = [picture.blur(cv2.GaussianBlur(blobs, (0, 0), sigma)) for sigma in (0.4, 1.0, 2.0, 5.0)]
    assert blurs == sorted(blurs)
    assert 0 <= blurs[0] < 0.45 < 0.7 < blurs[-1] <= 1
    assert picture.blur(np.full((32, 32), 7, np.uint8)) == 1
    assert picture.blur(np.zeros((3, 5), np.uint8)) == 1


def test_sky_is_not_blurred(blobs: Pixels) -> None:
    under_sky = blobs.copy()
    under_sky[:240] = np.linspace(120, 200, 240).astype(np.uint8)[:, None]
    assert picture.blur(under_sky) == pytest.approx(picture.blur(blobs), abs=0.05)


def test_exposure_tells_a_night_with_lights_from_an_underexposed_day() -> None:
    night, dim, bright = (np.zeros(1000, np.uint8) for _ in range(3))
    night[:40] = 180
    dim[:500], dim[500:] = 8, 24
    bright[:300], bright[300:] = 200, 255
    tones = [picture.tone(cv2.merge([luma[None]] * 3)) for luma in (dim, night, bright)]
    assert [tone.exposure for tone in tones] == pytest.approx([16 / 255, 90 / 255, 227.5 / 255])
    assert [tone.contrast for tone in tones] == pytest.approx([16 / 255, 180 / 255, 55 / 255])
    assert [tone.clipping for tone in tones] == pytest.approx([0, 0.96, 0.7])


def test_a_picture_of_strong_colours_is_neither_dark_nor_bright() -> None:
    """By luma, blue alone would be dark (18) and yellow alone bright (237)."""
    for colour in ((0, 0, 255), (255, 255, 0)):
        assert picture.tone(np.full((9, 9, 3), colour, np.uint8)) == picture.Tone(0.5, 1.0, 0.0)


def test_black_bars_are_their_share_of_the_picture(blobs: Pixels) -> None:
    assert picture.black_bars(blobs).share == 0
    letterbox, pillars = blobs.copy(), blobs.copy()
    letterbox[:45], letterbox[-45:] = 0, 3
    pillars[:, :80], pillars[:, -80:] = 2, 0
    assert picture.black_bars(letterbox) == picture.Bars(45 / 360, 0)
    assert picture.black_bars(letterbox).share == pytest.approx(0.25)
    assert picture.black_bars(pillars).share == pytest.approx(0.25)
    for shown in (letterbox, cv2.merge([letterbox] * 3)):
        inside = picture.black_bars(letterbox).inside(shown)
        assert inside.min() > 3 and inside.shape[:2] == (270, 640)


def test_a_dark_wall_on_one_side_and_a_dark_picture_are_no_bars(blobs: Pixels) -> None:
    wall = blobs.copy()
    wall[:, 500:] = 0
    assert picture.black_bars(wall).share == 0
    assert picture.black_bars(blobs // 8 + 8).share == 0
    black = np.zeros((90, 160), np.uint8)
    assert picture.black_bars(black).share == 1
    assert picture.black_bars(black).inside(black).shape == black.shape


def test_colourfulness_is_none_in_grey_and_grows_with_saturation() -> None:
    chroma = np.random.default_rng(0).integers(-100, 100, (2, 27, 48))
    values = [picture.colourfulness((128 + degree * chroma).astype(np.uint8)) for degree in (0.0, 0.1, 0.4, 1.0)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == 1


def test_each_part_of_the_aesthetic_proxy_counts() -> None:
    good = {"sharpness": 0.7, "contrast": 0.9, "colour": 0.5, "exposure": 0.5}
    best = picture.aesthetic(**good)
    assert 0 < best < 1
    for worse in ({"sharpness": 0.2}, {"contrast": 0.3}, {"colour": 0.0}, {"exposure": 0.9}, {"exposure": 0.1}):
        assert picture.aesthetic(**(good | worse)) < best
    assert picture.aesthetic(1, 1, 1, 0.5) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 40), (40, 3), (16, 16), (17, 17)])
def test_a_tiny_picture_has_no_blocks_and_ends_nothing(shape: tuple[int, int]) -> None:
    assert picture.blockiness(np.random.default_rng(0).integers(0, 256, shape, np.uint8)) == 0.0
