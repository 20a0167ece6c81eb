"""Each defect of Backlot raises the measure that is meant for it, and clean footage lies well on the good side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.clips import SCHEMA
from telecine_components.media.glance import glance_of
from telecine_components.media.measures.meter import Meter, film_columns
from telecine_components.media.planes import planes_of
from telecine_models.backlot import clip
from telecine_models.backlot.defects import GRADED_DEFECTS, spoil

Pixels = npt.NDArray[np.uint8]
Film = tuple[Pixels, float]

MEANT_FOR: dict[str, tuple[str, int]] = {
    "blur": ("blur", 1),
    "noise": ("noise", 1),
    "overexposure": ("exposure", 1),
    "underexposure": ("exposure", -1),
    "logo": ("logo", 1),
    "text": ("overlay_text", 1),
    "freeze": ("freeze", 1),
    "blockiness": ("blockiness", 1),
    "shake": ("stability", -1),
}
GOOD = {
    "motion": (0.001, 0.5),
    "stability": (0.6, 1.0),
    "freeze": (0.0, 0.05),
    "flicker": (0.0, 0.1),
    "blur": (0.2, 0.55),
    "noise": (0.0, 0.01),
    "blockiness": (0.0, 0.1),
    "exposure": (0.2, 0.6),
    "contrast": (0.4, 1.0),
    "clipping": (0.0, 0.05),
    "colourfulness": (0.05, 0.9),
    "black_bars": (0.0, 0.0),
    "overlay_text": (0.0, 0.01),
    "logo": (0.0, 0.1),
    "aesthetic": (0.5, 1.0),
}


@pytest.fixture(scope="session")
def real_film(real_clips: Path) -> Callable[[str], Film]:
    """The first 24 frames of a real clip from a given one on, at most 180 pixels high."""

    def read(name: str) -> Film:
        stem, _, start = name.partition("@")
        with av.open(str(real_clips / f"{stem}.mp4")) as container:
            fps = float(container.streams.video[0].average_rate or 25)
            frames = [frame for _, frame in zip(range(int(start) + 24), container.decode(video=0), strict=False)]
            pictures = [frame.to_ndarray(format="rgb24") for frame in frames[int(start) :]]
        shrink = min(1.0, 180 / pictures[0].shape[0])
        sized = [cv2.resize(each, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) for each in pictures]
        return np.stack(sized), fps

    return read


def _check(kind: str, film: Film) -> None:
    frames, fps = film
    column, sign = MEANT_FOR[kind]
    values = [film_columns(frames, fps)[column]]
    values += [film_columns(spoil(frames, kind, severity, 3), fps)[column] for severity in (0.2, 0.5, 1.0)]
    rises = sign * np.diff(values)
    assert (rises >= 0).all(), values
    assert rises.sum() > 0.04, values


@pytest.mark.parametrize("kind", GRADED_DEFECTS)
@pytest.mark.parametrize("camera", ["static", "pan left"])
def test_a_defect_raises_its_measure_on_backlot(kind: str, camera: str) -> None:
    _check(kind, (clip(1, num_frames=24, fps=12, width_px=160, height_px=120, camera=camera).frames, 12.0))


@pytest.mark.parametrize("kind", GRADED_DEFECTS)
@pytest.mark.parametrize("name", ["bigbuckbunny@0", "bikes@80"])
def test_a_defect_raises_its_measure_on_real_footage(kind: str, name: str, real_film: Callable[[str], Film]) -> None:
    _check(kind, real_film(name))


@pytest.mark.parametrize("name", ["bigbuckbunny@0", "bigbuckbunny@90", "bikes@35", "bikes@190", "carphone@0"])
def test_clean_real_footage_lies_on_the_good_side(name: str, real_film: Callable[[str], Film]) -> None:
    columns = film_columns(*real_film(name))
    outside = {name: columns[name] for name, (low, high) in GOOD.items() if not low <= columns[name] <= high}
    assert not outside


@pytest.mark.parametrize("name", ["bigbuckbunny@0", "bikes@80"])
def test_motion_is_the_same_at_256_and_512_lines(name: str, real_film: Callable[[str], Film]) -> None:
    frames, fps = real_film(name)
    sizes = [(round(frames.shape[2] * height / frames.shape[1]), height) for height in (256, 512)]
    small, large = (
        film_columns(np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]), fps)
        for size in sizes
    )
    assert small["motion"] == pytest.approx(large["motion"], rel=0.1)
    assert small["stability"] == pytest.approx(large["stability"], abs=0.05)
    assert small["blur"] == pytest.approx(large["blur"], abs=0.05)


def test_the_columns_are_those_of_the_manifest() -> None:
    columns = film_columns(clip(0, num_frames=6, fps=12, width_px=64, height_px=48).frames, 12.0)
    assert set(columns) == {*GOOD, "fingerprint", "descriptor"} <= set(SCHEMA.names)


def _walk(frames: Pixels, fps: float) -> Meter:
    meter = Meter()
    for index, rgb in enumerate(frames):
        planes = planes_of(av.VideoFrame.from_ndarray(rgb, format="rgb24"))
        meter.look_at(planes, glance_of(planes, index, index / fps))
    return meter


def _numbers(columns: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in columns.items() if isinstance(value, float)}


def test_a_clip_has_the_numbers_of_its_own_frames() -> None:
    dull = clip(1, num_frames=24, fps=12, width_px=160, height_px=120).frames
    bright = spoil(clip(2, num_frames=36, fps=12, width_px=160, height_px=120).frames, "overexposure", 1.0, 0)
    meter = _walk(np.concatenate([dull, bright]), 12.0)
    for (start, end), film in {(0, 24): dull, (24, 60): bright}.items():
        found, alone = (_numbers(columns) for columns in (meter.clip(start, end), film_columns(film, 12.0)))
        assert found == pytest.approx(alone, abs=1e-5)


def test_what_is_black_for_a_moment_is_no_bar() -> None:
    frames = clip(1, num_frames=24, fps=12, width_px=160, height_px=120).frames.copy()
    frames[10:14] = 0
    assert film_columns(frames, 12.0)["black_bars"] == 0
    frames[:, :15], frames[:, -15:] = 0, 0
    assert film_columns(frames, 12.0)["black_bars"] == pytest.approx(0.25, abs=0.02)


def test_a_clip_between_two_looks_has_the_numbers_of_the_nearest() -> None:
    meter = _walk(clip(1, num_frames=24, fps=12, width_px=160, height_px=120).frames, 12.0)
    assert meter.clip(4, 5)["exposure"] == meter.clip(6, 7)["exposure"]
    assert len(meter.clip(4, 5)["fingerprint"]) == 8


def test_a_poster_is_a_strip_of_four_frames_of_the_clip() -> None:
    dull = clip(1, num_frames=48, fps=12, width_px=160, height_px=120).frames
    meter = _walk(np.concatenate([dull, dull // 4]), 12.0)
    strip = cv2.imdecode(np.frombuffer(meter.poster(48, 96), np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (120, 640, 3)
    expected = dull[[6, 18, 30, 42]] // 4
    found = np.stack(np.split(strip[..., ::-1], 4, axis=1)).astype(int)
    assert np.abs(found - expected).mean() < 4
