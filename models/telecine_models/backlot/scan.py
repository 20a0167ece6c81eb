"""How much every pixel looks like a backdrop or an object of every colour: what graded rewards are made from.

Every named colour is a ray of RGB space, because textures, light and rims only scale it: the backdrop's rays are
greyed and darkened (``draw.muted``), the objects' are the plain colours. A pixel belongs to the nearest ray, softly,
so that what is half right on a noisy sample counts half.
"""

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import muted
from telecine_models.backlot.scene import COLOURS

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

NAMES = tuple(COLOURS)
_OBJECT_RAYS = np.array(list(COLOURS.values()), dtype=np.float64)
_BACKDROP_RAYS = np.array([muted(name) for name in NAMES])
_BACKDROP_SCALE, _OBJECT_SCALE = (0.5, 1.5), (0.75, 1.15)
_SOFTNESS = 14.0
"""Standard deviation, in levels, of the distance at which a pixel still belongs to a ray."""
_SIDE_PX = 64
"""Larger pictures are shrunk to about this side by block means: reading gets faster and loses noise."""


class Scan:
    """Soft memberships of every pixel: what a graded reward is made from.

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
