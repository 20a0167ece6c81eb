"""Clips: the same bytes every time, fields that agree with each other, and styles that can be told apart."""

import hashlib
import itertools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.styles import GAMES, STYLES, overlay

SIZES = {"num_frames": 8, "fps": 8, "width_px": 48, "height_px": 32}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"style": None, "actions": "random", "num_flashes": 1},
    {"physics": "bounce", "violation": "floating"},
    {"defects": (("noise", 0.5), ("shake", 0.5))},
)
DIGEST = """
import hashlib, json, sys
from telecine_models.backlot import clip
film = clip(7, **json.loads(sys.argv[1]))
arrays = (film.frames, film.depth, film.instances, film.poses, film.intrinsics, film.sound(16000, 2))
print(hashlib.sha256(b"".join(each.tobytes() for each in arrays) + json.dumps(film.truth).encode()).hexdigest())
"""
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def digest(film: Clip) -> str:
    arrays = (film.frames, film.depth, film.instances, film.poses, film.intrinsics, film.sound(16000, 2))
    return hashlib.sha256(b"".join(each.tobytes() for each in arrays) + json.dumps(film.truth).encode()).hexdigest()


def test_a_clip_is_the_same_in_every_process() -> None:
    digests = set()
    for options in OPTIONS:
        command = [sys.executable, "-P", "-c", DIGEST, json.dumps(SIZES | options)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert child.stdout.strip() == digest(clip(7, **SIZES, **options))
        digests.add(child.stdout)
    assert len(digests) == len(OPTIONS)


def test_fields_have_their_shapes_and_the_truth_is_plain_json() -> None:
    for seed, style in itertools.product(range(3), STYLES):
        film = clip(seed, **SIZES, style=style)
        num = len(film.truth["objects"])
        assert film.frames.shape == (8, 32, 48, 3) and film.frames.dtype == np.uint8
        assert film.depth.shape == (8, 32, 48) and film.depth.dtype == np.float32
        assert film.masks.shape == (num, 8, 32, 48) and film.masks.dtype == np.bool_
        assert (film.poses.shape, film.intrinsics.shape) == ((8, 3, 4), (8, 3, 3))
        assert json.loads(json.dumps(film.truth)) == film.truth
        assert (film.truth["licence"], film.truth["consent"]) == ("CC0-1.0", "synthetic")
        assert film.truth["duration_s"] == 1.0
        members = [member for part in film.truth["parts"] for member in part["members"]]
        assert sorted(members) == list(range(num))
        assert [each["part"] for each in film.truth["objects"]] == [
            index for index, part in enumerate(film.truth["parts"]) for _ in part["members"]
        ]


def test_everything_is_in_view_in_the_first_frame_and_objects_move_as_their_caption_says() -> None:
    for seed in range(20):
        film = clip(seed, **SIZES)
        for each in film.truth["objects"]:
            assert each["visible_ratio"][0] == 1
            assert each["pixels"][0] > 0
            path = np.diff(np.array(each["centers_m"])[:, :2], axis=0)
            deed = film.truth["parts"][each["part"]]["deed"]
            way = next((way for word, way in WAYS.items() if deed.endswith(word)), None)
            if way is not None:
                assert (path @ way > 0).all()


def test_two_games_and_the_open_world_show_the_same_places_in_looks_of_their_own() -> None:
    for seed in range(4):
        films = {style: clip(seed, **SIZES, style=style, actions="random") for style in STYLES if style != "studio"}
        one, other = (films[game] for game in GAMES)
        assert np.array_equal(one.depth, other.depth) and np.array_equal(one.instances, other.instances)
        assert np.array_equal(one.poses, films["open world"].poses)
        for a, b in itertools.combinations(films.values(), 2):
            histograms = [np.histogram(each.frames, bins=16, range=(0, 256))[0] / each.frames.size for each in (a, b)]
            assert 0.5 * np.abs(histograms[0] - histograms[1]).sum() > 0.25


def test_games_have_a_display_that_stands_still_and_the_others_have_none() -> None:
    for style in STYLES:
        display = np.zeros((1, 64, 64, 3), np.uint8)
        overlay(style, display)
        marked = display[0].any(axis=2)
        assert (0.02 < marked.mean() < 0.2) if style in GAMES else not marked.any()
        film = clip(1, num_frames=12, fps=4, width_px=64, height_px=64, style=style, actions="random")
        assert (film.frames[:, marked] == display[0][marked]).all()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("seed", -1), ("num_frames", 0), ("fps", 0), ("width_px", 15), ("height_px", 8), ("num_flashes", -1)],
)
def test_a_wrong_argument_is_named_with_its_value(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"clip: {argument} must be at least .*, got {value}"):
        clip(**({"seed": 0} | SIZES | {argument: value}))
