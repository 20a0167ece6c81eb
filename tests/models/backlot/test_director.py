"""Films: the same bytes every time, and a truth that the pixels bear out."""

import functools
import hashlib
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from telecine_models.backlot import Film, film
from telecine_models.backlot.scene import COLOURS

Shot = tuple[Film, int, dict[str, Any]]
"""A film, the shot's place in it, and the shot's truth."""


@functools.cache
def films() -> list[Film]:
    """Enough films for every transition and every defect to occur."""
    return [film(seed, num_frames=72, fps=12, width_px=160, height_px=120) for seed in range(44)]


def shots() -> list[Shot]:
    return [(f, index, shot) for f in films() for index, shot in enumerate(f.truth["shots"])]


def interior(f: Film, index: int) -> slice:
    """Frames of a shot that are mixed with no other."""
    truths = f.truth["shots"]
    last = truths[index + 1]["blend_frames"][0] if index + 1 < len(truths) else len(f.frames)
    return slice(max(truths[index]["blend_frames"][1], truths[index]["start_frame"]), last)


def with_defect(*names: str) -> list[Shot]:
    """Shots with one of these defects, or sound shots if none is named."""
    return [
        (f, i, shot) for f, i, shot in shots() if (set(shot["defects"]) & set(names) if names else not shot["defects"])
    ]


def brightness(frames: np.ndarray) -> float:
    return float(frames.mean())


def sharpness(frames: np.ndarray) -> float:
    """Median over frames of the Laplacian's variance."""
    grey = frames.mean(axis=3)
    laplacian = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    )
    return float(np.median(laplacian.var(axis=(1, 2))))


def test_frames_and_truth_have_the_size_that_was_asked_for() -> None:
    f = film(3, num_frames=20, fps=10, width_px=64, height_px=48)
    assert f.frames.shape == (20, 48, 64, 3)
    assert f.frames.dtype == np.uint8
    assert {key: f.truth[key] for key in ("fps", "width", "height", "num_frames", "seed")} == {
        "fps": 10,
        "width": 64,
        "height": 48,
        "num_frames": 20,
        "seed": 3,
    }
    assert (f.truth["licence"], f.truth["consent"]) == ("CC0-1.0", "synthetic")


def test_a_film_is_the_same_in_every_process() -> None:
    code = """
import hashlib, json
from telecine_models.backlot import film
for seed in (0, 7):
    f = film(seed, num_frames=48, fps=12, width_px=96, height_px=64)
    print(hashlib.sha256(f.frames.tobytes() + json.dumps(f.truth).encode()).hexdigest())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = (film(seed, num_frames=48, fps=12, width_px=96, height_px=64) for seed in (0, 7))
    digests = [hashlib.sha256(f.frames.tobytes() + json.dumps(f.truth).encode()).hexdigest() for f in here]
    assert child.stdout.split() == digests
    assert digests[0] != digests[1]


def test_the_truth_is_plain_json() -> None:
    for f in films():
        assert json.loads(json.dumps(f.truth)) == f.truth


def test_times_agree_with_frames() -> None:
    assert all(shot["start_s"] * 12 == pytest.approx(shot["start_frame"]) for _, _, shot in shots())
    assert all(shot["end_s"] * 12 == pytest.approx(shot["end_frame"]) for _, _, shot in shots())


def test_the_centre_of_every_object_has_its_colour() -> None:
    for f, index, shot in with_defect():
        seen = interior(f, index)
        for thing in shot["objects"]:
            for path in thing["centers_px"]:
                x, y = np.array(path[seen.start - shot["start_frame"] : seen.stop - shot["start_frame"]]).astype(int).T
                colours = f.frames[np.arange(seen.start, seen.stop), y, x].astype(int)
                assert np.abs(colours - COLOURS[thing["colour"]]).max() <= 12


def test_a_hard_cut_is_a_greater_change_than_any_within_a_shot() -> None:
    cuts = [(f, shot["start_frame"]) for f, _, shot in shots() if shot["transition"] == "cut"]
    assert len(cuts) > 20
    for f, cut in cuts:
        change = np.abs(np.diff(f.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
        spans = [interior(f, index) for index in range(len(f.truth["shots"]))]
        within = np.concatenate([change[span.start : span.stop - 1] for span in spans])
        assert change[cut - 1] > 1.5 * within.max()


def test_a_fade_goes_through_black_and_a_dissolve_does_not() -> None:
    found = set()
    for f, _, shot in shots():
        first, end = shot["blend_frames"]
        if first == end or shot["defects"]:
            continue
        ends = min(brightness(f.frames[first - 1]), brightness(f.frames[end]))
        darkest = min(brightness(frame) for frame in f.frames[first:end])
        found.add(shot["transition"])
        assert darkest < 0.4 * ends if shot["transition"] == "fade" else darkest > 0.8 * ends
    assert found == {"dissolve", "fade"}


def test_sound_shots_move_and_frozen_ones_do_not() -> None:
    for f, index, _ in with_defect():
        assert np.abs(np.diff(f.frames[interior(f, index)].astype(float), axis=0)).mean(axis=(1, 2, 3)).min() > 0.05
    frozen = with_defect("frozen")
    assert frozen
    for f, index, _ in frozen:
        still = f.frames[interior(f, index)]
        assert (still == still[0]).all()


def test_blurry_shots_are_less_sharp_than_any_sound_one() -> None:
    blurry = [sharpness(f.frames[interior(f, index)]) for f, index, _ in with_defect("blurry")]
    sound = [sharpness(f.frames[interior(f, index)]) for f, index, _ in with_defect()]
    assert blurry
    assert 3 * max(blurry) < min(sound)


def test_wrongly_exposed_shots_are_brighter_or_darker_than_any_sound_one() -> None:
    sound = [brightness(f.frames[interior(f, index)]) for f, index, _ in with_defect()]
    over = [brightness(f.frames[interior(f, index)]) for f, index, _ in with_defect("overexposed")]
    under = [brightness(f.frames[interior(f, index)]) for f, index, _ in with_defect("underexposed")]
    assert min(over) > max(sound)
    assert max(under) < min(sound)


@pytest.mark.parametrize(
    ("argument", "value"), [("seed", -1), ("num_frames", 0), ("fps", 0), ("width_px", 15), ("height_px", 8)]
)
def test_a_wrong_argument_is_named_with_its_value(argument: str, value: int) -> None:
    right = {"seed": 0, "num_frames": 8, "fps": 8, "width_px": 32, "height_px": 32}
    with pytest.raises(ValueError, match=f"film: {argument} must be at least .*, got {value}"):
        film(**(right | {argument: value}))
