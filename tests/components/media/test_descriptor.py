"""Descriptors are unit vectors that lie close where clips look alike."""

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.descriptor import SIZE, descriptor, mirrored, unit_mean

Pixels = npt.NDArray[np.uint8]


def scene(seed: int) -> Pixels:
    """Five boxes on a plain ground, 54 x 96."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((54, 96, 3), np.uint8)
    drawn[:] = rng.integers(40, 215, 3)
    for _ in range(5):
        top, left = rng.integers(0, 40), rng.integers(0, 76)
        drawn[top : top + rng.integers(8, 24), left : left + rng.integers(10, 40)] = rng.integers(0, 256, 3)
    return drawn


def test_a_descriptor_has_length_one_whatever_it_describes() -> None:
    dark, noise = np.zeros((54, 96, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (2, 27, 48, 3), np.uint8)
    for pictures in (scene(0)[None], dark[None], noise):
        found = descriptor(pictures)
        assert found.shape == (SIZE,)
        assert found.dtype == np.float32
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-4)


def test_alike_is_close_and_unlike_is_far() -> None:
    original = scene(1)
    half = original.reshape(27, 2, 48, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    noisy = (original + np.random.default_rng(0).normal(0, 2, original.shape)).clip(0, 255).astype(np.uint8)
    here = descriptor(original[None])
    assert here @ descriptor(half[None]) > 0.95
    assert here @ descriptor(noisy[None]) > 0.98
    assert max(here @ descriptor(scene(seed)[None]) for seed in range(2, 30)) < 0.9


def test_colour_alone_and_edges_alone_both_tell_scenes_apart() -> None:
    original = scene(1)
    recoloured = original[..., ::-1]
    turned = np.ascontiguousarray(original[::-1])
    assert descriptor(original[None]) @ descriptor(recoloured[None]) < 0.97
    assert descriptor(original[None]) @ descriptor(turned[None]) < 0.9


def test_noise_on_a_flat_frame_does_not_look_like_something() -> None:
    rng = np.random.default_rng(0)
    flat = [(128 + rng.normal(0, 1, (54, 96, 3))).clip(0, 255).astype(np.uint8) for _ in range(2)]
    assert descriptor(flat[0][None]) @ descriptor(flat[1][None]) > 0.95


def test_the_descriptor_of_a_clip_is_the_mean_of_its_frames() -> None:
    frames = np.stack([scene(1), scene(2), scene(3)])
    singly = np.stack([descriptor(frame[None]) for frame in frames])
    assert np.allclose(descriptor(frames), unit_mean(singly), atol=1e-5)


def test_the_descriptor_of_a_mirrored_picture_is_known_without_it() -> None:
    original = scene(1)[:, :, [0, 0, 1]]
    seen = descriptor(np.ascontiguousarray(original[:, ::-1])[None])
    assert mirrored(descriptor(original[None])) @ seen > 0.995
    assert descriptor(original[None]) @ seen < 0.9
