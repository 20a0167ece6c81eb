"""What a film shows, read from its pixels: the backdrop, the objects by colour, where they are and how they move.

Made for one shot of a film and for studio clips with a camera at rest; anything else is read too, with less
confidence. Pixels are made colours in :mod:`.sight`, parts in :mod:`.blobs`, things in :mod:`.objects`.
"""

import dataclasses
import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.blobs import find_blobs
from telecine_models.backlot.ground import read_pan, read_texture
from telecine_models.backlot.objects import Trace, read_motion, read_shape, read_size, trace
from telecine_models.backlot.scene import Direction, Motion, Shape, Texture
from telecine_models.backlot.sight import NAMES, Sight, look

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Place = Literal["left of", "right of", "above", "below"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """All objects of one colour.

    Attributes:
        size: small, medium or large, as in captions.
        share: area as a share of the picture, mean over frames.
        position: mean place (x, y) of all of them in all frames, in pixels of the given frames.
        positions: float64 [count, F, 2] each one's place in every frame, in pixels.
        velocity: displacement (x, y) over the film, in sides of the picture.
        confidence: of ``colour``, ``count``, ``shape``, ``size``, ``position`` and ``motion``, each in [0, 1]; higher
            where it is more often right, but no probability.
    """

    colour: str
    count: int
    shape: Shape
    size: str
    share: float
    position: tuple[float, float]
    positions: Floats
    motion: Motion
    velocity: tuple[float, float]
    confidence: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
    """``first`` is ``place`` ``second``, both named by colour: mean positions along the axis that parts them more."""

    first: str
    place: Place
    second: str
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What was read.

    Attributes:
        background_share: how much of the picture looks like that background.
        pan: where the camera pans to while the objects keep their places in the frame, or None.
        things: by falling share.
        relations: one for every pair of things, the larger first.
        certainty: of ``background``, ``texture`` and ``pan``, each in [0, 1].
        confidence: in [0, 1], how much of the picture the reading explains, times the mean confidence in its things.
    """

    background: str
    background_share: float
    texture: Texture
    pan: Direction | None
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]
    certainty: dict[str, float]
    confidence: float


def read(frames: Frames) -> Reading:
    """Read a film, uint8 [F, H, W, 3] of any size.

    Raises:
        ValueError: frames of another shape or type, or none.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"scene reader: frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}")
    sight = look(frames)
    blobs = find_blobs(sight.labels, sight.covers)
    traces = {colour: trace(blobs, colour, len(frames)) for colour in sight.covers}
    things = [_thing(sight, colour, found) for colour, found in traces.items() if found is not None]
    things.sort(key=lambda thing: -thing.share)
    share = float(sight.likeness[sight.background])
    texture, pan, certainty = _ground(frames, sight)
    explained = min(1.0, share + sum(thing.share for thing in things)) * (1 - sight.odd)
    sure = [float(np.mean(list(thing.confidence.values()))) for thing in things] or [certainty["background"]]
    return Reading(
        background=NAMES[sight.background],
        background_share=share,
        texture=texture,
        pan=pan,
        things=tuple(things),
        relations=tuple(_relation(first, second) for first, second in itertools.combinations(things, 2)),
        certainty=certainty,
        confidence=explained * float(np.mean(sure)),
    )


def _thing(sight: Sight, colour: int, found: Trace) -> Thing:
    cover, side = sight.covers[colour], min(sight.pixels.shape[1:3])
    jitter = found.jitter(sight.cover_noise[colour])
    motion, velocity, motion_sure = read_motion(found, side, jitter)
    shape, radius, shape_sure = read_shape(found, cover, sight.num_smoothed)
    size, size_sure = read_size(radius / side)
    positions = sight.factor * found.every_frame(len(cover))
    middle = positions.mean(axis=(0, 1))
    # What covers a pixel by half must stand out from the noise of covers where there is none.
    clear = float(np.exp(-0.5 * (sight.cover_noise[colour] / 0.2) ** 2))
    even = 1 / (1 + (found.unevenness / 0.3) ** 2)
    confidence = {
        "colour": (1 - sight.doubt[colour] ** 2) * clear,
        "count": found.agreement * even * clear,
        "shape": shape_sure * clear,
        "size": size_sure * shape_sure**0.5 * even * clear,
        "position": found.agreement * clear / (1 + jitter),
        "motion": motion_sure * clear,
    }
    return Thing(
        colour=NAMES[colour],
        count=found.count,
        shape=shape,
        size=size,
        share=float((sight.labels == colour + 1).mean()),
        position=(float(middle[0]), float(middle[1])),
        positions=positions,
        motion=motion,
        velocity=velocity,
        confidence=confidence,
    )


def _relation(first: Thing, second: Thing) -> Relation:
    dx, dy = (there - here for here, there in zip(first.position, second.position, strict=True))
    beside: Place = "left of" if dx > 0 else "right of"
    over: Place = "above" if dy > 0 else "below"
    margin = abs(abs(dx) - abs(dy))
    return Relation(
        first=first.colour,
        place=beside if abs(dx) >= abs(dy) else over,
        second=second.colour,
        confidence=min(first.confidence["position"], second.confidence["position"]) * margin / (margin + 2),
    )


def _ground(frames: Frames, sight: Sight) -> tuple[Texture, Direction | None, dict[str, float]]:
    """Texture, pan, and the certainty of both and of the background's colour."""
    middle = len(frames) // 2
    texture, texture_sure = read_texture(sight.light(middle), sight.bare(middle), sight.light_noise)
    pan, pan_sure = read_pan(frames, sight.bare, sight.factor)
    first, second = sorted((float(like) for like in sight.likeness), reverse=True)[:2]
    sure = first / max(first + second, 1e-9) * min(1.0, 2 * first)
    return texture, pan, {"background": sure, "texture": texture_sure * sure, "pan": pan_sure * sure}
