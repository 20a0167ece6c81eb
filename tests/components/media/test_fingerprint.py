"""Fingerprints stay when a picture is coded, scaled, lit or framed differently, and differ between pictures."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from telecine_components.media.fingerprint import BLANK, fingerprint, inside_bars, mirrored

Pixels = npt.NDArray[np.uint8]


def picture(seed: int, width_px: int = 96, height_px: int = 54) -> Pixels:
    """Smooth random shapes, the spectrum of which falls as that of a photograph does."""
    noise = np.random.default_rng(seed).normal(size=(108, 192))
    down, across = np.fft.fftfreq(108)[:, None], np.fft.rfftfreq(192)[None]
    shapes = np.fft.irfft2(np.fft.rfft2(noise) / (0.02 + np.hypot(down, across)) ** 1.5, s=noise.shape)
    grey = 110 + 45 * shapes / shapes.std()
    return np.asarray(Image.fromarray(grey.clip(30, 235).astype(np.uint8)).resize((width_px, height_px)))


def hashes(*lumas: Pixels) -> Pixels:
    return np.frombuffer(b"".join(fingerprint(luma[None]) for luma in lumas), np.uint8).reshape(-1, 8)


def distance(a: Pixels, b: Pixels) -> int:
    return int(np.bitwise_count(hashes(a) ^ hashes(b)).sum())


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_keeps_its_hash_through_what_copies_do_to_it(seed: int) -> None:
    original = picture(seed)
    noisy = original + np.random.default_rng(seed).normal(0, 6, original.shape)
    assert distance(original, picture(seed, 48, 27)) <= 4
    assert distance(original, noisy.clip(0, 255).astype(np.uint8)) <= 6
    assert distance(original, (original * 0.7 + 20).astype(np.uint8)) <= 4


def test_different_pictures_differ_in_about_half_of_the_bits() -> None:
    all_hashes = hashes(*[picture(seed) for seed in range(40)])
    apart = np.bitwise_count(all_hashes[:, None] ^ all_hashes[None]).sum(axis=-1)[np.triu_indices(40, k=1)]
    assert 28 < apart.mean() < 36
    assert apart.min() > 12


def test_the_hash_of_a_mirrored_picture_is_known_without_it() -> None:
    for seed in range(4):
        original = picture(seed)
        assert (hashes(original[:, ::-1]) == mirrored(hashes(original))).all()
        assert distance(original, original[:, ::-1]) > 12


def test_black_bars_do_not_count() -> None:
    original = picture(1)
    boxed = np.zeros((70, 96), np.uint8)
    boxed[8:62] = original
    assert inside_bars(boxed) == (slice(8, 62), slice(0, 96))
    assert fingerprint(boxed[None]) == fingerprint(original[None])


def test_frames_that_show_nothing_are_blank_and_keep_their_place() -> None:
    black = np.zeros((54, 96), np.uint8)
    flat = np.random.default_rng(0).integers(118, 123, (54, 96)).astype(np.uint8)
    shown = picture(2)
    found = fingerprint(np.stack([black, shown, flat]))
    assert found == BLANK + fingerprint(shown[None]) + BLANK
    assert not mirrored(hashes(black)).any()


def test_a_small_light_in_the_dark_is_not_a_picture_between_bars() -> None:
    night = np.full((54, 96), 10, np.uint8)
    night[20:26, 40:50] = 200
    assert inside_bars(night) == (slice(0, 54), slice(0, 96))
