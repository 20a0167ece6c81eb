"""What a film shows, read from its pixels: background colour, objects by colour with area, count, shape and motion.

Every named colour is a ray of RGB space, because textures, light and rims only scale it: the backdrop's rays are
greyed and darkened (``draw._paint``), the objects' are the plain colours. A pixel belongs to the nearest ray, softly,
so that what is half right on a noisy sample counts half.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.scene import COLOURS, DIRECTIONS

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

NAMES = tuple(COLOURS)
_OBJECT_RAYS = np.array(list(COLOURS.values()), dtype=np.float64)
_BACKDROP_RAYS = 0.62 * _OBJECT_RAYS + 0.2 * np.array((110.0, 115.0, 125.0))
_BACKDROP_SCALE, _OBJECT_SCALE = (0.5, 1.5), (0.75, 1.15)
_SOFTNESS = 14.0
"""Standard deviation, in levels, of the distance at which a pixel still belongs to a ray."""
_SIDE_PX = 64
"""Larger pictures are shrunk to about this side by block means: reading gets faster and loses noise."""
_MIN_SHARE = 0.004
"""Area share below which a colour is no object but noise or the mixed edge of another."""
_STILL = 0.04
"""Displacement over the film, in sides of the picture, below which nothing moves."""
_SHAPES = {"triangle": 0.5, "circle": np.pi / 4, "square": 1.0}
"""Share of its bounding box that a shape covers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    """All objects of one colour.

    Attributes:
        share: area, mean over frames, as a share of the picture.
        count: connected parts in the median frame.
        shape: by how much of its bounding box the largest part covers.
        motion: left, right, up, down or still; bouncing objects are read by where they mostly went.
        velocity: displacement (x, y) over the film, in sides of the picture.
    """

    colour: str
    share: float
    count: int
    shape: str
    motion: str
    velocity: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read; ``confidence`` in [0, 1] is how much of the picture the named background and objects explain."""

    background: str
    background_share: float
    things: tuple[Thing, ...]
    confidence: float


class Scan:
    """Soft memberships of every pixel: what a :class:`Reading` and a graded reward are both made from.

    Attributes:
        backdrop: [8] share of the picture that looks like each colour's backdrop, all frames together.
        masks: [8, F, H, W] how much of each pixel looks like an object of each colour.
    """

    def __init__(self, frames: Frames) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"scene reader: frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}")
        pixels = _shrunk(frames)
        self.size = pixels.shape[:3]
        far = [_distances(pixels, _BACKDROP_RAYS, _BACKDROP_SCALE), _distances(pixels, _OBJECT_RAYS, _OBJECT_SCALE)]
        likely = np.exp(-0.5 * (np.stack(far) / _SOFTNESS) ** 2)
        # What is far from every ray belongs to none: the constant is the likelihood three deviations away.
        likely /= likely.sum(axis=(0, 1)) + np.exp(-4.5)
        self.backdrop: Floats = likely[0].mean(axis=(1, 2, 3))
        self.masks = self._objects(likely)

    @property
    def background(self) -> int:
        """Index of the colour that most of the picture has as a backdrop."""
        return int(np.argmax(self.backdrop))

    def shares(self) -> Floats:
        """Area [8] of the objects of each colour, mean over frames."""
        mean: Floats = self.masks.mean(axis=(1, 2, 3))
        return mean

    def velocity(self, colour: int) -> tuple[float, float]:
        """Displacement (x, y) of the colour's centre of mass over the film by a straight fit, in sides."""
        centres, weights = self._centres(colour)
        times = np.linspace(0, 1, len(centres)) if len(centres) > 1 else np.zeros(1)
        offset = times - np.average(times, weights=weights)
        spread = float((weights * offset**2).sum())
        if spread <= 1e-12:
            return 0.0, 0.0
        slope = (weights * offset) @ centres / spread
        return float(slope[0]), float(slope[1])

    def _centres(self, colour: int) -> tuple[Floats, Floats]:
        """Centre of mass [F, 2] (x, y) in sides, and the mass [F] of each frame."""
        mask, (_, height, width) = self.masks[colour], self.size
        weights = mask.sum(axis=(1, 2)) + 1e-9
        x = (mask.sum(axis=1) @ (np.arange(width) + 0.5)) / weights
        y = (mask.sum(axis=2) @ (np.arange(height) + 0.5)) / weights
        return np.stack((x, y), axis=1) / min(height, width), weights

    def _objects(self, likely: Floats) -> Floats:
        """Object memberships without those of the background's own colour, which no object has."""
        masks: Floats = likely[1].copy()
        masks[self.background] = 0
        return masks


def read(frames: Frames) -> Reading:
    """Read a film, uint8 [F, H, W, 3] of any size.

    Raises:
        ValueError: frames of another shape or type, or none.
    """
    scan = Scan(frames)
    shares = scan.shares()
    present = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] >= _MIN_SHARE]
    share = float(scan.backdrop[scan.background])
    return Reading(
        background=NAMES[scan.background],
        background_share=share,
        things=tuple(_thing(scan, colour, float(shares[colour])) for colour in present[:2]),
        confidence=min(1.0, share + float(shares[present[:2]].sum())),
    )


def _thing(scan: Scan, colour: int, share: float) -> Thing:
    velocity = scan.velocity(colour)
    middle = scan.masks[colour][scan.size[0] // 2] > 0.5
    parts = _parts(middle)
    return Thing(
        colour=NAMES[colour],
        share=share,
        count=max(1, len(parts)),
        shape=_shape(parts[0]) if parts else "circle",
        motion=_direction(velocity),
        velocity=velocity,
    )


def _direction(velocity: tuple[float, float]) -> str:
    if max(abs(velocity[0]), abs(velocity[1])) < _STILL:
        return "still"
    return max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], velocity)))


def _shape(part: npt.NDArray[np.bool_]) -> str:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    covered = part.sum() / box
    return min(_SHAPES, key=lambda name: abs(_SHAPES[name] - covered))


def _parts(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Connected parts of a mask [H, W], the largest first; those under a fifth of the largest are left out."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        spread = np.maximum.reduce([padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1]])
        spread = np.where(mask, np.maximum.reduce([spread, padded[1:-1, :-2], padded[1:-1, 2:]]), 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    names, sizes = np.unique(labels[mask], return_counts=True)
    kept = [(int(size), int(name)) for name, size in zip(names, sizes, strict=True) if 5 * size >= sizes.max()]
    return [labels == name for _, name in sorted(kept, reverse=True)]


def _distances(pixels: Floats, rays: Floats, scale: tuple[float, float]) -> Floats:
    """Distance [8, F, H, W] of every pixel from each ray, where a ray may be scaled within ``scale``."""
    stretch = np.clip((pixels @ rays.T) / (rays**2).sum(axis=1), *scale)
    squared = (pixels**2).sum(-1)[..., None] - 2 * stretch * (pixels @ rays.T) + stretch**2 * (rays**2).sum(axis=1)
    return np.moveaxis(np.sqrt(np.maximum(squared, 0)), -1, 0)


def _shrunk(frames: Frames) -> Floats:
    factor = max(1, round(min(frames.shape[1:3]) / _SIDE_PX))
    num, height, width = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    kept = frames[:, : height * factor, : width * factor].astype(np.float64)
    shrunk: Floats = kept.reshape(num, height, factor, width, factor, 3).mean(axis=(2, 4))
    return shrunk
