from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.caption.write import colours
from telecine_components.caption.write.camera import camera_motion, steps_of
from telecine_components.caption.write.frames import Series, evenly, pictures
from telecine_components.caption.write.moves import camera_sentence
from telecine_components.caption.write.signals import described, series
from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.planes import planes_of, thumbnail
from telecine_models.backlot import clip
from telecine_models.backlot.camera import CAMERAS

Pixels = npt.NDArray[np.uint8]
Film = Callable[..., Pixels]
CLIP = {"start_s": 0.0, "end_s": 4.0, "num_frames": 48} | dict.fromkeys(
    ("blur", "overlay_text", "black_bars", "mean_shot_s")
)
VERBS = {"static": "is static", "dolly": "dollies"}


def _camera(frames: Pixels, duration_s: float = 4.0) -> str | None:
    steps = steps_of([np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames])
    return camera_sentence(camera_motion(steps), duration_s)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"right": 3}, "The camera pans right."),
        ({"right": -3}, "The camera pans left."),
        ({"down": 2}, "The camera tilts down."),
        ({"down": -2}, "The camera tilts up."),
        ({"right": -1}, "The camera pans left slowly."),
        ({"right": 10}, "The camera pans right quickly."),
        ({}, "The camera is static."),
        ({"right": 4, "down": 3}, "The camera pans right and tilts down."),
    ],
)
def test_the_camera_is_told_by_what_the_picture_does(film: Film, shift: dict[str, float], words: str) -> None:
    assert _camera(film(16, **shift)) == words


def test_a_zoom_is_told_from_a_turn(landscape: Pixels) -> None:
    def at(scale: float, angle_deg: float) -> Pixels:
        height, width = landscape.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, scale)
        return np.asarray(cv2.warpAffine(landscape, matrix, (width, height))[108:216, 192:384], np.uint8)

    steps = range(16)
    assert _camera(np.stack([at(1.02**index, 0) for index in steps]), 2.0) == "The camera zooms in."
    assert _camera(np.stack([at(1.3 * 0.98**index, 0) for index in steps]), 2.0) == "The camera zooms out."
    # A picture that turns counterclockwise is seen by a camera that rolls clockwise.
    assert _camera(np.stack([at(1.2, 1.5 * index) for index in steps]), 2.0) == "The camera rolls clockwise."


def test_a_shaken_camera_is_held_by_hand_and_a_bare_wall_says_nothing(film: Film, landscape: Pixels) -> None:
    for most_px, words in ((1, "and shakes a little, as if held by hand."), (3, "and shakes strongly.")):
        jumps = np.random.default_rng(1).integers(-most_px, most_px + 1, (16, 2))
        shaken = np.stack([landscape[108 + y : 216 + y, 192 + x : 384 + x] for y, x in jumps])
        assert (_camera(shaken) or "").endswith(words)
    assert _camera(np.full((16, 108, 192, 3), 90, np.uint8)) is None
    assert _camera(film(16, right=3), duration_s=0.3) is None


def _with_a_red_thing(film: Film, *, step_px: int) -> Pixels:
    """16 pictures in which it goes to the right."""
    frames = np.stack(list(film(16)))
    for index, frame in enumerate(frames):
        left = 10 + step_px * index
        frame[70:100, left : left + 30] = (220, 30, 30)
        frame[78:92, left + 8 : left + 22] = (250, 80, 80)
    return frames


def test_what_moves_by_itself_is_told_with_colour_place_and_way(film: Film) -> None:
    frames = _with_a_red_thing(film, step_px=4)
    parts = described(list(frames), CLIP)
    assert parts["camera"] == "The camera is static."
    assert parts["main_object"] is not None and "red" in parts["main_object"]
    assert parts["action"] == "It goes to the right."
    assert "at the lower left" in parts["main_object"] or "at the bottom" in parts["main_object"]


def test_the_colour_of_what_moves_is_looked_up_where_it_was_though_it_was_dark_before(film: Film) -> None:
    frames = _with_a_red_thing(film, step_px=7)
    frames[:6] = 0
    main_object = described(list(frames), CLIP)["main_object"]
    assert main_object is not None and " red " in main_object


def test_nothing_is_claimed_that_was_not_measured(film: Film) -> None:
    still = described(list(film(16)), CLIP)
    assert (still["action"], still["main_object"]) == ("Nothing moves.", None)
    wall = described([np.full((108, 192, 3), (60, 90, 200), np.uint8)] * 16, CLIP)
    assert wall["background"] == "The picture is mostly blue."
    assert wall["camera"] is None
    assert described(list(film(1)), CLIP)["action"] is None


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 10), "black"),
        ((128, 128, 130), "grey"),
        ((250, 250, 248), "white"),
        ((222, 48, 52), "red"),
        ((245, 137, 30), "orange"),
        ((248, 213, 56), "yellow"),
        ((56, 172, 82), "green"),
        ((52, 198, 214), "cyan"),
        ((52, 92, 224), "blue"),
        ((142, 68, 192), "purple"),
        ((244, 132, 188), "pink"),
        ((110, 70, 40), "brown"),
        ((222, 200, 160), "beige"),
    ],
)
def test_colours_have_the_names_that_people_give_them(rgb: tuple[int, int, int], name: str) -> None:
    assert colours.NAMES[int(colours.names_of(np.array(rgb, np.uint8)))] == name


def test_halves_of_different_colours_are_told_apart_and_black_bars_are_not_part_of_the_picture() -> None:
    halves = np.full((108, 192, 3), (150, 190, 240), np.uint8)
    halves[54:] = (60, 140, 50)
    barred = np.concatenate([np.zeros((20, 192, 3), np.uint8), halves, np.zeros((20, 192, 3), np.uint8)])
    told = "The upper part of the picture is mostly blue and the lower part mostly green."
    assert described([halves] * 8, CLIP)["background"] == told == described([barred] * 8, CLIP)["background"]


def test_measures_of_the_manifest_become_words(film: Film) -> None:
    measured = CLIP | {"blur": 0.7, "overlay_text": 0.05, "black_bars": 0.1, "mean_shot_s": 2.5}
    style = described(list(film(4)), measured)["style"]
    assert style is not None
    for words in ("soft", "text over it", "black bars", "cut about every 2.5 seconds"):
        assert words in style


def test_pictures_are_those_of_the_clip(film: Film, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_mp4(path, film(60, right=3), 12)
    seen = _pictures(path, {"start_s": 40 / 12, "end_s": 52 / 12, "num_frames": 12}, (0.0, 0.25, 0.5, 0.75))
    with open_video(path) as video:
        frames = [thumbnail(planes_of(frame), 96, 54) for _, frame in video.frames()]
    assert [_place(each, frames) for each in seen] == [40, 43, 46, 49]


def test_a_frame_that_stands_for_seconds_is_what_its_clip_shows(film: Film, write_video: Callable[..., Path]) -> None:
    """As in a recording of slides: a rate that varies, and clips of one frame."""
    path = write_video("slides.mp4", film(13, right=3), stamps=[0, *range(120, 132)])
    with open_video(path) as video:
        shown = [thumbnail(planes_of(frame), 96, 54) for _, frame in video.frames()]
    slide = _pictures(path, {"start_s": 0.0, "end_s": 10.0, "num_frames": 1}, evenly(8, 0.0, 10.0))
    assert [np.array_equal(picture, shown[0]) for picture in slide] == [True]
    rest = _pictures(path, {"start_s": 10.0, "end_s": 11.0, "num_frames": 12}, evenly(5, 0.0, 1.0))
    assert np.array_equal(rest, [shown[1 + place] for place in (1, 4, 6, 8, 11)])


@pytest.mark.parametrize("later_s", [(10, 10), (0, 20), (20, 0)])
def test_pictures_of_joined_recordings_are_those_of_the_clip(
    film: Film, copied: Callable[..., Path], tmp_path: Path, later_s: tuple[float, float]
) -> None:
    """Stamps begin anew behind the seam, or leave a hole there."""
    parts = []
    for place, begin_s in enumerate(later_s):
        write_mp4(tmp_path / "part.mp4", film(24, right=3 + 2 * place), 12)
        parts.append(copied(tmp_path / "part.mp4", tmp_path / f"{place}.ts", later_s=begin_s).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    with open_video(path) as video:
        times_s, frames = zip(*((time_s, thumbnail(planes_of(f), 96, 54)) for time_s, f in video.frames()), strict=True)
    clip = {"start_s": times_s[30], "end_s": times_s[42], "num_frames": 12}
    seen = _pictures(path, clip, (0.0, 0.25, 0.5, 0.75))
    assert [_place(each, frames) for each in seen] == [30, 33, 36, 39]


def test_one_pass_gives_each_clip_its_pictures_and_none_where_the_film_has_ended(
    film: Film, write_video: Callable[..., Path]
) -> None:
    path = write_video("predicted from later ones.avi", film(36, right=3))
    spans = [(2, 14), (14, 15), (20, 36), (40, 52)]
    clips = [{"start_s": a / 12, "end_s": b / 12, "num_frames": b - a} for a, b in spans]
    wanted = [(clip, [Series((0.0, 0.25), 96), Series((0.5,), 96)]) for clip in clips]
    with open_video(path) as video:
        frames = [thumbnail(planes_of(frame), 96, 54) for _, frame in video.frames()]
    places = [[[_place(each, frames) for each in one] for one in seen] for seen in pictures(path, wanted)]
    assert places == [[[2, 5], [8]], [[14], [14]], [[20, 23], [26]], [[], []]]


def _pictures(path: Path, clip: dict[str, Any], times_s: Sequence[float]) -> list[Pixels]:
    ((seen,),) = pictures(path, [(clip, [Series(times_s, 96)])])
    return seen


def _caption(path: Path, clip: dict[str, Any]) -> dict[str, str | None]:
    ((seen,),) = pictures(path, [(clip, [series(clip)])])
    return described(seen, clip)


def _place(picture: Pixels, frames: Sequence[Pixels]) -> int | None:
    return next((index for index, frame in enumerate(frames) if np.array_equal(frame, picture)), None)


def test_equal_clips_get_equal_words(film: Film, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, film(48, right=1), 12)
    told = [_caption(path, CLIP) for _ in range(2)]
    assert told[0] == told[1]
    assert told[0]["camera"] == "The camera pans right."


def test_camera_words_agree_with_the_truth_of_backlot(tmp_path: Path) -> None:
    """One film of each move; a move that cannot be seen may be left out, and a wrong one is told at most once."""
    told: dict[str, Any] = {}
    for index, name in enumerate(CAMERAS):
        shot = clip(700 + index, num_frames=25, fps=12, width_px=160, height_px=120, style="open world", camera=name)
        write_mp4(tmp_path / "film.mp4", shot.frames, 12)
        told[name] = _caption(tmp_path / "film.mp4", CLIP | {"end_s": 25 / 12, "num_frames": 25})["camera"]
    right = [name for name, words in told.items() if words and _wanted(name) in words]
    wrong = {name: words for name, words in told.items() if words and _wanted(name) not in words}
    assert len(right) >= 12, told
    assert len(wrong) <= 1, wrong


def _wanted(name: str) -> str:
    kind, _, direction = name.partition(" ")
    return VERBS[kind] + (f" {direction}" if direction else "") if kind in VERBS else f"{kind}s {direction}"
