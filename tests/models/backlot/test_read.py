"""The scene reader on rendered films: measured, at the size that models train at and at full size."""

import dataclasses
import functools
from collections import Counter

import numpy as np
import pytest

from telecine_models.backlot.draw import render
from telecine_models.backlot.read import read
from telecine_models.backlot.scene import Scene, Stage, compose

NUM_SCENES = 100
TRAINING = Stage(width_px=32, height_px=32, fps=8)
FULL = Stage(width_px=160, height_px=120, fps=12)


@functools.cache
def films(stage: Stage, num_frames: int) -> list[tuple[Scene, np.ndarray]]:
    scenes = [
        compose(np.random.default_rng(1000 + seed), stage, num_frames, moving=seed % 8 != 0)
        for seed in range(NUM_SCENES)
    ]
    return [(scene, render(scene)) for scene in scenes]


def scores(stage: Stage, num_frames: int, noise_levels: float = 0.0) -> dict[str, float]:
    """Share of scenes (background, set of colours) and of found objects (motion, count, shape) that are read right."""
    right: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    for scene, clean in films(stage, num_frames):
        noisy = np.clip(clean + rng.normal(0, noise_levels, clean.shape), 0, 255).astype(np.uint8)
        reading = read(noisy)
        right["background"] += reading.background == scene.backdrop.colour
        right["colours"] += {t.colour for t in reading.things} == {g.colour for g in scene.groups}
        groups = {group.colour: group for group in scene.groups if group.motion != "bounce"}
        for thing in (thing for thing in reading.things if thing.colour in groups):
            group = groups[thing.colour]
            right["found"] += 1
            right["motion"] += thing.motion == group.motion
            right["count"] += thing.count == group.count
            right["shape"] += thing.shape == group.shape
    each = {name: right[name] / NUM_SCENES for name in ("background", "colours")}
    return each | {name: right[name] / right["found"] for name in ("motion", "count", "shape")}


@pytest.mark.parametrize(("stage", "num_frames"), [(TRAINING, 8), (FULL, 12)], ids=["training size", "full size"])
def test_a_rendered_film_is_read_as_it_was_meant(stage: Stage, num_frames: int) -> None:
    measured = scores(stage, num_frames)
    print(measured)
    assert measured["background"] == 1.0
    assert measured["colours"] > 0.93
    assert measured["motion"] > 0.97
    assert measured["count"] > 0.97
    assert measured["shape"] > (0.7 if stage is TRAINING else 0.9)


def test_noise_costs_confidence_before_it_costs_the_background() -> None:
    assert scores(TRAINING, 8, noise_levels=40)["background"] > 0.95
    sure = [read(frames).confidence for _, frames in films(TRAINING, 8)]
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    assert min(sure) > 0.5 > 0.3 > read(noise).confidence


def test_films_of_any_size_are_read_and_a_grey_one_without_confidence() -> None:
    for shape in [(1, 1, 1, 3), (1, 16, 16, 3), (3, 33, 200, 3), (2, 240, 320, 3)]:
        reading = read(np.full(shape, 128, np.uint8))
        assert reading.things == ()
        assert reading.confidence < 0.5
        assert all(np.isfinite(value) for value in dataclasses.astuple(reading) if isinstance(value, float))


@pytest.mark.parametrize(
    "frames",
    [np.zeros((8, 32, 32), np.uint8), np.zeros((8, 32, 32, 3), np.float32), np.zeros((0, 32, 32, 3), np.uint8)],
)
def test_what_is_no_film_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(Exception, match=r"uint8 \[F, H, W, 3\]|numpy.uint8"):
        read(frames)
