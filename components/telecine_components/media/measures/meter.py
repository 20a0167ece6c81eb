"""Measuring a film in one pass: every frame as a glance, two pictures a second from near. Clips are chosen at its end.

What is kept are numbers and a :class:`.Gallery`, so that the memory needed hardly grows with the film.
"""

import dataclasses
import math
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.media.descriptor import descriptor, unit_mean
from telecine_components.media.fingerprint import FRAMES_PER_S, fingerprint
from telecine_components.media.glance import Glance, array_of, glance_of
from telecine_components.media.measures import movement, picture
from telecine_components.media.measures.gallery import Gallery, jpeg_of, small_picture, spread, within
from telecine_components.media.measures.overlay import overlay
from telecine_components.media.planes import LUMA_TO_FULL, Planes, planes_of

STUDIES_PER_S = 2.0
NEAR_PX = 320
"""Longer side of the picture on which blur and bars are measured: they are of the picture, not of its pixels."""
OVERLAY_PICTURES, POSTER_PICTURES = 12, 4
CHUNK_FRAMES = 64
STAMP_S = 0.001
"""Time stamps may be rounded by this much (Matroska's are)."""

_TYPICAL = ("blur", "noise", "blockiness")
_DESCRIBED_PX = (96, 54)
_TO_FULL = np.array(LUMA_TO_FULL, np.uint8)

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]


class Meter:
    """Looks at the frames of a film in the order shown."""

    def __init__(self) -> None:
        self._moving = _Moving()
        self._hash_clock, self._study_clock = _Clock(FRAMES_PER_S), _Clock(STUDIES_PER_S)
        self._hashed: list[int] = []
        self._hashes: list[bytes] = []
        self._studies: list[_Study] = []
        self._gallery = Gallery()

    def look_at(self, planes: Planes, glance: Glance) -> None:
        """Take in one more frame, given as it is and as a glance."""
        self._moving.look_at(glance)
        if self._hash_clock.strikes(glance.time_s):
            self._hashed.append(glance.index)
            self._hashes.append(fingerprint(planes.orientation.upright(glance.luma)[None]))
        if self._study_clock.strikes(glance.time_s):
            rgb = small_picture(planes)
            self._gallery.hang(glance.index, rgb)
            self._studies.append(_study(planes, glance, rgb))

    def clip(self, start: int, end: int) -> dict[str, Any]:
        """The measured columns of the manifest for the frames ``start`` to ``end`` (exclusive).

        A clip that is so short that none of its frames was looked at from near has the numbers of the nearest.
        """
        places = within(self._gallery.indices, start, end)
        studies = [self._studies[place] for place in places]
        over = overlay(np.stack([self._gallery.luma(place) for place in spread(places, OVERLAY_PICTURES)]))
        numbers = self._moving.clip(start, end) | _looks(studies) | {"overlay_text": over.text, "logo": over.logo}
        return {name: round(value, 6) for name, value in numbers.items()} | {
            "fingerprint": b"".join(self._hashes[place] for place in within(self._hashed, start, end)),
            "descriptor": unit_mean(np.stack([study.descriptor for study in studies])).tolist(),
        }

    def poster(self, start: int, end: int) -> bytes:
        """Four frames of a clip beside each other, or as many as were kept: JPEG, of small pictures."""
        places = spread(within(self._gallery.indices, start, end), POSTER_PICTURES)
        return jpeg_of(np.concatenate([self._gallery.picture(place) for place in places], axis=1))


class _Clock:
    """Strikes at the first frame at or after each multiple of a step."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._next = per_s, 0

    def strikes(self, time_s: float) -> bool:
        passed = math.floor((time_s + STAMP_S) * self._per_s)
        if passed < self._next:
            return False
        self._next = passed + 1
        return True


class _Moving:
    """Numbers per frame, and per pair of frames with the later one's place. Glances are kept for one chunk."""

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._times: list[float] = []
        self._lumas: list[Pixels] = []
        self._brightness: list[float] = []
        self._pairs: list[Numbers] = []

    def look_at(self, glance: Glance) -> None:
        self._indices.append(glance.index)
        self._times.append(glance.time_s)
        self._brightness.append(float(glance.luma.mean()) / 255)
        self._lumas.append(glance.luma)
        if len(self._lumas) > CHUNK_FRAMES:
            self._compare()

    def clip(self, start: int, end: int) -> dict[str, float]:
        self._compare()
        # From here on the chunks are one, so that further clips find it made.
        self._pairs = [np.concatenate([np.zeros((0, 4)), *self._pairs])]
        first, last = (int(np.searchsorted(self._indices, edge)) for edge in (start, end))
        pairs = self._pairs[0][first : max(first, last - 1)]
        seconds = self._times[last - 1] - self._times[first] if len(pairs) else 0.0
        fps = len(pairs) / seconds if seconds > 0 else 0.0
        flows, displacements, changes = pairs[:, 0], pairs[:, 1:3], pairs[:, 3]
        return {
            "motion": movement.motion(flows, displacements, seconds),
            "stability": movement.stability(displacements, fps),
            "freeze": movement.freeze(changes, fps),
            "flicker": movement.flicker(np.array(self._brightness[first:last]), fps),
        }

    def _compare(self) -> None:
        if len(self._lumas) < 2:
            return
        lumas = np.stack(self._lumas)
        numbers = [movement.flow(lumas), *movement.displacement(lumas).T, movement.changed(lumas)]
        self._pairs.append(np.stack(numbers, axis=1))
        del self._lumas[:-1]


@dataclasses.dataclass(frozen=True, eq=False)
class _Study:
    """One picture from near."""

    blur: float
    noise: float
    blockiness: float
    tone: picture.Tone
    colourfulness: float
    bars: picture.Bars
    descriptor: npt.NDArray[np.float32]


def _study(planes: Planes, glance: Glance, rgb: Pixels) -> _Study:
    luma = array_of(planes.y)
    if not planes.full_range:
        luma = np.asarray(cv2.LUT(luma, _TO_FULL), np.uint8)
    shrink = min(1.0, NEAR_PX / max(luma.shape))
    size = max(1, round(luma.shape[1] * shrink)), max(1, round(luma.shape[0] * shrink))
    near = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)
    bars = picture.black_bars(near)
    as_stored = planes.orientation.as_stored(rgb)
    return _Study(
        blur=picture.blur(bars.inside(near)),
        noise=picture.noise(luma),
        blockiness=picture.blockiness(bars.inside(luma)),
        tone=picture.tone(bars.inside(as_stored)),
        colourfulness=picture.colourfulness(glance.chroma),
        bars=bars,
        descriptor=descriptor(np.asarray(cv2.resize(rgb, _DESCRIBED_PX, interpolation=cv2.INTER_AREA), np.uint8)[None]),
    )


def _looks(studies: list[_Study]) -> dict[str, float]:
    """A clip's numbers from those of its pictures: means, but medians of what an odd picture can upset."""
    typical = {name: float(np.median([getattr(study, name) for study in studies])) for name in _TYPICAL}
    tones = np.mean([dataclasses.astuple(study.tone) for study in studies], axis=0)
    exposure, contrast, clipping = (float(value) for value in tones)
    colour = float(np.mean([study.colourfulness for study in studies]))
    # What is black for a moment is no bar.
    bars = picture.Bars(min(study.bars.down for study in studies), min(study.bars.across for study in studies))
    return typical | {
        "exposure": exposure,
        "contrast": contrast,
        "clipping": clipping,
        "colourfulness": colour,
        "black_bars": bars.share,
        "aesthetic": picture.aesthetic(1 - typical["blur"], contrast, colour, exposure),
    }


def film_columns(frames: Pixels, fps: float) -> dict[str, Any]:
    """What :meth:`Meter.clip` gives for a film in memory, uint8 [F, H, W, 3]."""
    meter = Meter()
    for index, rgb in enumerate(frames):
        planes = planes_of(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"))
        meter.look_at(planes, glance_of(planes, index, index / fps))
    return meter.clip(0, len(frames))
