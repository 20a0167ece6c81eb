"""The reward of a caption: graded, for the right thing, and fast."""

import statistics
import time

import numpy as np
import pytest

from telecine_models.backlot.draw import render
from telecine_models.backlot.scene import Stage, compose
from telecine_models.rewards.caption import PARTS, caption_reward

STAGE = Stage(width_px=32, height_px=32, fps=8)
SCENES = [compose(np.random.default_rng(5000 + seed), STAGE, 8, moving=True) for seed in range(60)]
FILMS = [render(scene) for scene in SCENES]
CAPTIONS = [scene.caption for scene in SCENES]


def mean(captions: list[str], films: list[np.ndarray], part: str = "reward") -> float:
    return statistics.mean(caption_reward(c, f)[part] for c, f in zip(captions, films, strict=True))


def test_a_rendered_film_earns_most_with_its_own_caption_and_little_with_another() -> None:
    assert mean(CAPTIONS, FILMS) > 0.85
    assert mean(CAPTIONS[1:] + CAPTIONS[:1], FILMS) < 0.2
    own = [caption_reward(c, f)["reward"] for c, f in zip(CAPTIONS, FILMS, strict=True)]
    assert min(own) > 0.6


def test_every_part_lies_between_zero_and_one_and_the_reward_is_their_mean() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    for film in [*FILMS[:10], noise]:
        for caption in CAPTIONS[:10]:
            parts = caption_reward(caption, film)
            assert set(parts) == {*PARTS, "reward"}
            assert all(0 <= value <= 1 for value in parts.values())
            assert parts["reward"] == pytest.approx(statistics.mean(parts[name] for name in PARTS))


def test_a_film_played_backwards_loses_its_motion_and_nothing_else() -> None:
    backwards = [film[::-1].copy() for film in FILMS]
    moving = [not any(g.motion == "bounce" for g in scene.groups) for scene in SCENES]
    captions = [c for c, keep in zip(CAPTIONS, moving, strict=True) if keep]
    reverse = [f for f, keep in zip(backwards, moving, strict=True) if keep]
    assert mean(captions, reverse, "motion") < 0.05
    assert mean(CAPTIONS, backwards, "background") == pytest.approx(mean(CAPTIONS, FILMS, "background"))
    assert mean(CAPTIONS, backwards, "objects") == pytest.approx(mean(CAPTIONS, FILMS, "objects"))


def test_an_empty_background_of_the_right_colour_earns_a_third() -> None:
    empty = [np.broadcast_to(np.median(f, axis=(0, 1, 2)).astype(np.uint8), f.shape).copy() for f in FILMS]
    assert 0.25 < mean(CAPTIONS, empty) < 0.4
    assert mean(CAPTIONS, empty, "background") > 0.9


def test_the_reward_falls_step_by_step_as_noise_grows() -> None:
    rng = np.random.default_rng(1)
    means = []
    for levels in (0, 20, 40, 80, 160):
        noisy = [np.clip(f + rng.normal(0, levels, f.shape), 0, 255).astype(np.uint8) for f in FILMS]
        means.append(mean(CAPTIONS, noisy))
    assert means == sorted(means, reverse=True)
    assert means[2] > 0.3, "a film that a person still recognises earns something"


def test_more_of_the_picture_in_the_right_colour_earns_more() -> None:
    caption = "a red circle moves right on a blue background"
    blue, yellow = (57, 80, 164), (176, 155, 60)
    earned = []
    for rows in (0, 8, 16, 24, 32):
        film = np.broadcast_to(np.array(yellow, np.uint8), (8, 32, 32, 3)).copy()
        film[:, :rows] = blue
        earned.append(caption_reward(caption, film)["background"])
    assert earned == sorted(earned)
    assert earned[0] < 0.05 < 0.3 < earned[2] < 0.7 < 0.95 < earned[4]


def test_judging_a_training_sample_takes_milliseconds() -> None:
    started = time.process_time()
    for caption, film in zip(CAPTIONS, FILMS, strict=True):
        caption_reward(caption, film)
    assert (time.process_time() - started) / len(FILMS) < 0.1


def test_a_foreign_caption_is_refused() -> None:
    with pytest.raises(ValueError, match="expected Backlot's"):
        caption_reward("a dog runs on a beach", FILMS[0])
