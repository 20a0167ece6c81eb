"""From pixels to colours: the backdrop's, those of the objects before it, and how much of each pixel an object covers.

Every named colour is a ray of RGB space, because textures, light, rims and patterns only scale it: the backdrop's rays
are greyed and darkened (``draw.muted``), the objects' are the plain colours. What is not on the backdrop's ray is an
object, and at its edge a mixture of two known rays, so that the shares of a mixed pixel can be solved for.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.blobs import find_parts
from telecine_models.backlot.draw import muted
from telecine_models.backlot.scene import COLOURS

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NAMES = tuple(COLOURS)
_OBJECTS = np.array(list(COLOURS.values()), np.float32)
_BACKDROPS = np.array([muted(name) for name in NAMES], np.float32)
_OBJECT_RAYS = _OBJECTS / np.linalg.norm(_OBJECTS, axis=1, keepdims=True)
_BACKDROP_RAYS = _BACKDROPS / np.linalg.norm(_BACKDROPS, axis=1, keepdims=True)
_BACKDROP_SCALE, _OBJECT_SCALE = (0.3, 1.5), (0.3, 1.25)
_SOFTNESS = 14.0
"""Standard deviation, in levels, of the distance at which a pixel still belongs to a ray."""
_SIDE_PX = 64
"""Larger pictures are shrunk to about this side by block means: reading gets faster and loses noise."""
_SMOOTH_FROM = (9.0, 24.0, 64.0)
"""Levels of noise from which pixels are smoothed once, twice and three times."""
_LEFT_NOISE = (1.0, 0.375, 0.27, 0.22)
"""What so many smoothings leave of the noise."""
_LEAST_FAR = 12.0
_ENOUGH = 16384
_LIKE_ENOUGH = 40.0
_LEAST_AREA_PX = 3
_LEAST_SHARE = 0.003
_LEAST_SEEN = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """Pixels [F, H, W, 3] in levels, perhaps shrunk by ``factor`` and smoothed, and what they are made of.

    Attributes:
        noise: standard deviation in levels that is left of the noise.
        num_smoothed: how often the pixels were smoothed.
        background: index of the colour that most of the picture has as a backdrop.
        likeness: [8] share of the picture that looks like each colour's backdrop.
        covers: by colour [F, H, W], how much of each pixel is an object of it; only colours that are there.
        odd: share of all pixels off the backdrop's ray that are part of no object found.
        labels: int8 [F, H, W], 1 + colour of the object that covers most of the pixel, 0 for the backdrop.
        doubt: by colour, how near the next likely colour comes: 0 not at all, 1 as near as this one.
        cover_noise: by colour, the noise of its covers, as their standard deviation on the backdrop.
    """

    pixels: Floats
    factor: int
    noise: float
    num_smoothed: int
    background: int
    likeness: Floats
    covers: dict[int, Floats]
    odd: float
    labels: npt.NDArray[np.int8]
    doubt: dict[int, float]
    cover_noise: dict[int, float]

    def bare(self, index: int) -> npt.NDArray[np.bool_]:
        """Where frame ``index`` shows the backdrop alone [H, W]: no object, and no soft shadow next to one."""
        hidden = self.labels[index] > 0
        reach = 1 + round(min(hidden.shape) / 32)
        for axis in (0, 1):
            line = np.moveaxis(hidden, axis, 0)
            grown = line.copy()
            for step in range(1, reach + 1):
                grown[step:] |= line[:-step]
                grown[:-step] |= line[step:]
            hidden = np.moveaxis(grown, 0, axis)
        bare: npt.NDArray[np.bool_] = ~hidden
        return bare

    def light(self, index: int) -> Floats:
        """Brightness [H, W] of frame ``index`` in units of the backdrop's colour."""
        ray = _BACKDROPS[self.background]
        light: Floats = self.pixels[index] @ (ray / (ray @ ray))
        return light

    @property
    def light_noise(self) -> float:
        """Standard deviation of the noise in :meth:`light`."""
        return self.noise / float(np.linalg.norm(_BACKDROPS[self.background]))


def look(frames: Frames) -> Sight:
    """Find the backdrop and the colours of the objects in frames, uint8 [F, H, W, 3]."""
    pixels, factor = _shrunk(frames)
    raw_noise = _noise(pixels)
    times = sum(raw_noise >= level for level in _SMOOTH_FROM)
    for _ in range(times):
        pixels = smooth(pixels, (1, 2))
    noise = raw_noise * _LEFT_NOISE[times]
    likeness = _likeness(_some(pixels.reshape(-1, 3)), noise)
    background = int(likeness.argmax())
    owner, odd, doubt = _object_colours(pixels, background, noise)
    covers, labels, cover_noise = {}, np.zeros(owner.shape, np.int8), {}
    for colour in doubt:
        cover = _cover(pixels, background, colour)
        covers[colour] = np.clip(cover, 0, 1)
        labels[(owner == colour + 1) & (cover > 0.5)] = colour + 1
        bare = _some(cover[owner == 0])
        cover_noise[colour] = float(np.median(np.abs(bare)) / 0.6745) if len(bare) else 1.0
    return Sight(
        pixels=pixels,
        factor=factor,
        noise=noise,
        num_smoothed=times,
        background=background,
        likeness=likeness,
        covers=covers,
        odd=odd,
        labels=labels,
        doubt=doubt,
        cover_noise=cover_noise,
    )


def _some(values: Floats) -> Floats:
    """Enough of many values for a statistic; an odd step, so that no column of a picture is left out."""
    return values[:: len(values) // _ENOUGH | 1]


def _likeness(flat: Floats, noise: float) -> Floats:
    lengths = np.linalg.norm(_BACKDROPS, axis=1)
    along = flat @ _BACKDROP_RAYS.T
    nearest = np.clip(along, _BACKDROP_SCALE[0] * lengths, _BACKDROP_SCALE[1] * lengths)
    squared = np.einsum("ij,ij->i", flat, flat)[:, None] - (2 * along - nearest) * nearest
    like: Floats = np.exp(squared * np.float32(-0.5 / (_SOFTNESS**2 + noise**2))).mean(axis=0)
    return like


def _object_colours(
    pixels: Floats, background: int, noise: float
) -> tuple[npt.NDArray[np.int8], float, dict[int, float]]:
    """Which object every pixel may be part of, int8 [F, H, W] of 1 + colour, what is odd, and doubt by colour."""
    flat = pixels.reshape(-1, 3)
    others = [colour for colour in range(len(NAMES)) if colour != background]
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat)) + np.float32(1e-3)
    along = flat @ _BACKDROP_RAYS[background]
    aside = np.sqrt(np.maximum(length**2 - along**2, 0))
    is_object = ((flat @ _OBJECT_RAYS[others].T).max(axis=1) > along) & (aside > max(_LEAST_FAR, 3.5 * noise))
    owner = np.zeros(len(flat), np.int8)
    places, part, num = find_parts(is_object.reshape(pixels.shape[:3]).astype(np.int8))
    if not num:
        return owner.reshape(pixels.shape[:3]), float((aside > _LEAST_FAR + 3.5 * noise).mean()), {}
    far = _part_colours(flat[places], aside[places] / length[places], part, num)
    far[:, background] = np.inf
    frame = np.zeros(num, np.int64)
    frame[part] = places // (pixels.shape[1] * pixels.shape[2])
    doubt = _shown_colours(far, np.bincount(part, minlength=num), frame, pixels.shape, noise)
    colour = far.argmin(axis=1)
    owner[places] = np.where(np.isin(colour, list(doubt)), colour + 1, 0)[part]
    return owner.reshape(pixels.shape[:3]), float((owner[places] == 0).mean()), doubt


def _shown_colours(far: Floats, area: Ints, frame: Ints, shape: tuple[int, ...], noise: float) -> dict[int, float]:
    """The doubt of every colour that enough parts have in enough frames of [F, H, W, 3].

    Args:
        far, area, frame: of each part, its distances [N, 8] from all colours, its pixels [N] and its frame [N].
    """
    colour, nearest = far.argmin(axis=1), np.partition(far, 1, axis=1)
    is_clear = (area >= _LEAST_AREA_PX) & (nearest[:, 0] < _LIKE_ENOUGH + noise)
    doubt: dict[int, float] = {}
    for each in np.unique(colour[is_clear]):
        mine = is_clear & (colour == each)
        share = area[mine].sum() / (shape[0] * shape[1] * shape[2])
        if share >= _LEAST_SHARE and len(np.unique(frame[mine])) >= _LEAST_SEEN * shape[0]:
            doubt[int(each)] = float(np.average(nearest[mine, 0] / nearest[mine, 1], weights=area[mine]))
    return doubt


def _part_colours(pixels: Floats, tilt: Floats, part: Ints, num: int) -> Floats:
    """Distance [num, 8] of each part's core from each colour.

    At an edge two colours mix and look like a third one; the core is what is tilted most from the backdrop's ray.
    """
    most = np.zeros(num, np.float32)
    np.maximum.at(most, part, tilt)
    core = tilt >= 0.85 * most[part]
    shown, part = pixels[core], part[core]
    scale = np.clip(shown @ _OBJECTS.T / (_OBJECTS**2).sum(axis=1), *_OBJECT_SCALE)
    # Bright colours are cut off at white.
    away = np.linalg.norm(shown[:, None] - np.minimum(scale[..., None] * _OBJECTS, 255), axis=2)
    sums = [np.bincount(part, column, minlength=num) for column in away.T]
    far: Floats = (np.stack(sums, axis=1) / np.bincount(part, minlength=num)[:, None]).astype(np.float32)
    return far


def _cover(pixels: Floats, background: int, colour: int) -> Floats:
    """Share [F, H, W] of the colour in a mixture of it and of the backdrop, whatever the light on either."""
    rays = np.stack((_BACKDROPS[background], _OBJECTS[colour]))
    solve = np.linalg.inv(rays @ rays.T) @ rays
    parts = pixels @ solve.T
    behind, front = np.maximum(parts[..., 0], 0), parts[..., 1]
    cover: Floats = front / np.maximum(behind + np.maximum(front, 0), np.float32(0.15))
    return cover


def _shrunk(frames: Frames) -> tuple[Floats, int]:
    factor = max(1, round(min(frames.shape[1:3]) / _SIDE_PX))
    if factor == 1:
        return frames.astype(np.float32), 1
    num, height, width = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    kept = frames[:, : height * factor, : width * factor].reshape(num, height, factor, width, factor, 3)
    # One sum after the other is many times as fast as a mean over both axes.
    rows = np.zeros((num, height, width, factor, 3), np.float32)
    for index in range(factor):
        rows += kept[:, :, index]
    sums: Floats = rows[:, :, :, 0].copy()
    for index in range(1, factor):
        sums += rows[:, :, :, index]
    return sums / np.float32(factor**2), factor


def _noise(pixels: Floats) -> float:
    """Standard deviation of independent noise, in levels, by second differences along rows."""
    if pixels.shape[2] < 3:
        return 0.0
    rows = pixels[:: 1 + len(pixels) // 8, ::2]
    bends = np.abs(rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:])
    return float(np.median(bends)) / (0.6745 * 6**0.5)


def smooth(planes: Floats, axes: tuple[int, int]) -> Floats:
    """Binomial mean of three pixels along both axes; the edge's values go on outside."""
    for axis in axes:
        line = np.moveaxis(planes, axis, 0)
        before, after = np.concatenate((line[:1], line[:-1])), np.concatenate((line[1:], line[-1:]))
        planes = np.moveaxis(np.float32(0.25) * (before + after) + np.float32(0.5) * line, 0, axis)
    return planes
