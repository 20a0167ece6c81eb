"""What films of the shot corpus are made of: spans of real shots, Backlot's clips, and drawn slides.

Everything is given as uint8 [F, H, W, 3]; a wide material is twice the film in both directions, for a camera to move
in. Spans lie inside single shots; they were found by eye on contact sheets.
"""

import functools
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from telecine_models.backlot import clip, film
from telecine_models.backlot.camera import Camera

WIDTH_PX, HEIGHT_PX, FPS = 320, 180, 24
SPANS: dict[str, tuple[tuple[int, int], ...]] = {
    "cosmos_30s": ((90, 150), (259, 286), (286, 306), (484, 523), (523, 573), (573, 610), (653, 701)),
    "carphone": ((0, 120),),
    "bikes": ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242)),
    "nasa_13013": ((0, 149), (180, 240), (240, 390)),
    "bigbuckbunny": ((0, 132),),
}
"""Frames (start, end exclusive) of each clip's shots that films may use."""
STREAMS = {"nasa_13013": 1}
"""Which of a clip's video streams is meant; the first one where nothing is said."""
_LETTERBOX_RATIO = {"cosmos_30s": 0.74}
"""Height of the picture between black bars over that of the frame."""

_CAMERAS: tuple[Camera | None, ...] = (None, "zoom in", "orbit right")

Pixels = npt.NDArray[np.uint8]


def real(folder: Path, source: str, start: int, num_frames: int, look: int, *, wide: bool) -> Pixels:
    """Frames of a real shot, cropped to the film's shape; ``look`` 0 the whole picture, 1 closer, 2 mirrored closer."""
    frames = _decoded(folder, source)[start : start + num_frames]
    height, width = frames[0].shape[:2]
    crop_height = height * _LETTERBOX_RATIO.get(source, 1.0)
    share = (1.0, 0.72, 0.6)[look]
    box_height = min(crop_height, width * HEIGHT_PX / WIDTH_PX) * share
    box_width = box_height * WIDTH_PX / HEIGHT_PX
    # A closer look is also to one side, as another camera's would be.
    left = round((width - box_width) * (0.5, 0.8, 0.3)[look])
    top = round((height - crop_height) / 2 + (crop_height - box_height) / 2)
    cut = [frame[top : top + round(box_height), left : left + round(box_width)] for frame in frames]
    shrunk = np.stack([_resized(frame, 2 if wide else 1) for frame in cut])
    return shrunk[:, :, ::-1].copy() if look == 2 else shrunk


def backlot(seed: int, num_frames: int, look: int, *, wide: bool) -> Pixels:
    """A clip of Backlot; every fourth seed is a flat film's world, every third a player's walk."""
    factor = 2 if wide else 1
    size: dict[str, Any] = {"fps": FPS, "width_px": WIDTH_PX * factor, "height_px": HEIGHT_PX * factor}
    if seed % 4 == 3:
        # Short enough to be one shot, because a film plans one about every two seconds.
        drawn = film(seed + 1_000_000 * look, num_frames=min(num_frames, 48), **size)
        start, end = max(((each["start_frame"], each["end_frame"]) for each in drawn.truth["shots"]), key=_length)
        frames = drawn.frames[start:end]
        return frames[np.minimum(np.arange(num_frames), len(frames) - 1)]
    if seed % 3 == 0 and look == 0:
        return clip(seed, num_frames=num_frames, style=None, actions="random", **size).frames
    return clip(seed, num_frames=num_frames, style=None, camera=_CAMERAS[look], **size).frames


def slide(seed: int, number: int, num_frames: int, *, wide: bool) -> Pixels:
    """A page of a deck: pages of one seed share paper, ink and heading."""
    deck, draw = np.random.default_rng((seed, 77)), np.random.default_rng((seed, 78, number))
    paper = int(deck.choice([250, 235, 30]))
    ink = deck.integers(0, 110, 3) if paper > 100 else deck.integers(170, 255, 3)
    page = np.full((2 * HEIGHT_PX, 2 * WIDTH_PX, 3), paper, np.uint8)
    page[:40] = deck.integers(40, 200, 3)
    for line in range(int(draw.integers(4, 9))):
        left = 40
        while left < 2 * WIDTH_PX - 80 and draw.uniform() < 0.93:
            word = int(draw.integers(12, 60))
            page[70 + 30 * line : 84 + 30 * line, left : left + word] = ink
            left += word + 12
    top, left = int(draw.integers(60, 150)), int(draw.integers(40, 300))
    page[top : top + int(draw.integers(60, 190)), left : left + int(draw.integers(120, 300))] = draw.integers(0, 255, 3)
    picture = page if wide else _resized(page, 1)
    return np.repeat(picture[None], num_frames, axis=0)


def leaves(seed: int, num_frames: int, *, wide: bool) -> Pixels:
    """A still of discs of all sizes over each other, which has the statistics of photographs (Lee et al. 2001)."""
    draw, size = np.random.default_rng((seed, 79)), (2 * HEIGHT_PX, 2 * WIDTH_PX, 3)
    page = np.full(size, draw.integers(30, 220, 3), np.uint8)
    # Large ones first, so that the picture is covered; then as areas fall with the cube of the radius.
    radii = [*draw.uniform(25, 110, 150), *(3 / np.sqrt(draw.uniform(0.001, 1, 1200)))]
    for radius in radii:
        centre = int(draw.integers(size[1])), int(draw.integers(size[0]))
        colour = np.clip(draw.normal(draw.choice([60, 128, 190]), 30) + draw.normal(0, 18, 3), 0, 255)
        cv2.circle(page, centre, round(float(radius)), colour.tolist(), -1, cv2.LINE_AA)
    soft = np.asarray(cv2.GaussianBlur(page, (0, 0), draw.uniform(0.5, 2.0)), np.uint8)
    picture = soft if wide else _resized(soft, 1)
    return np.repeat(picture[None], num_frames, axis=0)


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _resized(frame: Pixels, factor: int) -> Pixels:
    size = WIDTH_PX * factor, HEIGHT_PX * factor
    method = cv2.INTER_AREA if frame.shape[1] > size[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size, interpolation=method), np.uint8)


@functools.cache
def _decoded(folder: Path, source: str) -> list[Pixels]:
    with av.open(str(folder / f"{source}.mp4")) as container:
        stream = container.streams.video[STREAMS.get(source, 0)]
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(stream)]
