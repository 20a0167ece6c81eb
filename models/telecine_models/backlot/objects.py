"""From blobs in single frames to the objects of one colour: how many, of which shape and size, and how they move.

Every confidence is how far a measured value is from the one at which another answer would be read, in units of what
noise does to it; a number between 0 and 1, not a probability.
"""

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.blobs import Blobs
from telecine_models.backlot.draw import signed_distance
from telecine_models.backlot.scene import DIRECTIONS, LARGE_RATIO, SHAPES, SMALL_RATIO, Motion, Shape
from telecine_models.backlot.sight import smooth

Floats = npt.NDArray[np.float64]
Planes = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

AREA: dict[Shape, float] = {"circle": np.pi, "square": 2.0, "triangle": 1.299}
"""Area of a shape of radius one."""
_STILL_PX = 0.5
"""By how much pixels alone make a centre wander, at the most."""
_WOBBLE_PX = 0.25
_MOST_MATCHED = 4
_SHAPE_FRAMES = 8
_RADIUS_SCALES = (0.92, 1.0, 1.08)
_READ_RADIUS = 0.975
"""Found radius over the drawn one: dark rims look like the backdrop."""
# Many radii are a tenth of the side exactly, and count as medium.
_SMALL_BELOW = 0.985 * SMALL_RATIO


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Objects of one colour through a film.

    Attributes:
        frames: the frames [T] in which as many as usual are seen.
        centers: x and y [n, T, 2] of each object in those frames, in pixels.
        area: median area of one object, in pixels.
        agreement: share of all frames that are among ``frames``.
        unevenness: standard deviation of the areas over their mean.
    """

    frames: Ints
    centers: Floats
    area: float
    agreement: float
    unevenness: float

    @property
    def count(self) -> int:
        return len(self.centers)

    def every_frame(self, num_frames: int) -> Floats:
        """Centres [n, F, 2], in a straight line between the frames that were read."""
        times = np.arange(num_frames)
        flat = self.centers.transpose(0, 2, 1).reshape(-1, len(self.frames))
        filled = np.array([np.interp(times, self.frames, line) for line in flat])
        return filled.reshape(self.count, 2, num_frames).transpose(0, 2, 1)

    def jitter(self, cover_noise: float) -> float:
        """Standard deviation in pixels of a centre about a smooth path; 0 where too few frames tell.

        Not more than noise of the cover explains: fast reflections are no smooth path.
        """
        if len(self.frames) < 3:
            return 0.0
        bends = np.abs(self.centers[:, :-2] - 2 * self.centers[:, 1:-1] + self.centers[:, 2:])
        # Three in ten are below 0.385 standard deviations; reflections bend the rest, or one axis.
        low = np.quantile(bends, 0.3, axis=(0, 1)) / (0.385 * 6**0.5)
        return min(float(low.min()), max(_WOBBLE_PX, 2 * cover_noise))


def trace(blobs: Blobs, colour: int, num_frames: int) -> Trace | None:
    """Follow the objects of a colour, or None if no frame shows one."""
    mine = np.flatnonzero(blobs.colour == colour)
    if not len(mine):
        return None
    mine = mine[np.argsort(blobs.frame[mine], kind="stable")]
    num = np.bincount(blobs.frame[mine], minlength=num_frames)
    count = int(np.bincount(num[num > 0]).argmax())
    frames = np.flatnonzero(num == count)
    kept = mine[num[blobs.frame[mine]] == count]
    centers = np.stack((blobs.x[kept], blobs.y[kept]), axis=1).reshape(len(frames), count, 2)
    area = blobs.area[kept]
    return Trace(
        frames=frames,
        centers=_matched(centers).transpose(1, 0, 2),
        area=float(np.median(area)),
        agreement=len(frames) / num_frames,
        unevenness=float(area.std() / area.mean()),
    )


def _matched(centers: Floats) -> Floats:
    """Centres [T, n, 2] with each object in the same place of every frame: together they move as little as can be."""
    count = centers.shape[1]
    if not 1 < count <= _MOST_MATCHED:
        return centers
    orders = np.array(list(itertools.permutations(range(count))))
    # From each frame to the next the best order is found for all frames at once, then the orders are chained.
    moves = centers[1:, orders] - centers[:-1, None]
    best = orders[(moves**2).sum(axis=(2, 3)).argmin(axis=1)]
    chained, order = [np.arange(count)], np.arange(count)
    for step in best:
        order = step[order]
        chained.append(order)
    return np.take_along_axis(centers, np.array(chained)[..., None], axis=1)


def read_motion(found: Trace, side: int, jitter: float) -> tuple[Motion, tuple[float, float], float]:
    """Motion, displacement (x, y) from first to last frame in sides of the picture, and confidence."""
    if len(found.frames) < 2:
        return "still", (0.0, 0.0), 0.0
    times = found.frames - found.frames.mean()
    slope = np.einsum("t,ntk->k", times, found.centers) / found.count / (times**2).sum()
    gone = slope * (found.frames[-1] - found.frames[0])
    reach = (found.centers.max(axis=1) - found.centers.min(axis=1)).mean(axis=0)
    blur = max(_STILL_PX, 5 * jitter)
    less, more = float(reach.min()) / blur, float(reach.max()) / blur
    heading = max(DIRECTIONS, key=lambda way: float(np.dot(DIRECTIONS[way], gone)))
    motion: Motion
    if more < 1 or (less < 1 and np.abs(gone).max() < blur):
        motion, sure = "still", 1 - more / 2
    elif less > 1:
        motion, sure = "bounce", 1 - 1 / less
    else:
        motion, sure = heading, (1 - 1 / more) * (1 - less / 2)
    # Centres that jitter hide both a short way and a crooked one.
    sure = max(sure, 0.0) * found.agreement / (1 + jitter)
    return motion, (float(gone[0]) / side, float(gone[1]) / side), sure


def read_shape(found: Trace, cover: Planes, num_smoothed: int) -> tuple[Shape, float, float]:
    """Shape, radius in pixels, and confidence, by the drawn shape that is most like ``cover`` [F, H, W].

    Args:
        num_smoothed: how often the cover was smoothed, and the drawn shapes are.
    """
    patch, dx, dy, weight = _patches(found, cover)
    misfit: dict[Shape, tuple[float, float]] = {}
    for shape in SHAPES:
        radii = [scale * float(np.sqrt(found.area / AREA[shape])) for scale in _RADIUS_SCALES]
        fits = [_misfit(patch, weight, signed_distance(shape, dx, dy, radius), num_smoothed) for radius in radii]
        misfit[shape] = min(zip(fits, radii, strict=True))
    best, second = sorted(SHAPES, key=lambda shape: misfit[shape])[:2]
    error, radius = misfit[best]
    ratio = error / max(misfit[second][0], 1e-9)
    # A poor fit of the best shape says that it is none of them.
    return best, radius / _READ_RADIUS, float((1 - ratio**2) * np.exp(-error / 0.06))


def _misfit(patch: Planes, weight: Planes, distance: Planes, num_smoothed: int) -> float:
    drawn = np.clip(np.float32(0.5) - distance, 0, 1)
    for _ in range(num_smoothed):
        drawn = smooth(drawn, (1, 2))
    return float((weight * (patch - drawn) ** 2).sum() / weight.sum())


def _patches(found: Trace, cover: Planes) -> tuple[Planes, Planes, Planes, Planes]:
    """Surroundings of the objects in some frames [I, S, S], distances to their centres, and what counts of them."""
    height, width = cover.shape[1:]
    some = np.unique(np.linspace(0, len(found.frames) - 1, _SHAPE_FRAMES).astype(int))
    centers = found.centers[:, some]
    frame = np.tile(found.frames[some], found.count)[:, None, None]
    reach = int(np.ceil(np.sqrt(found.area / AREA["triangle"]) * 1.1 + 1.5))
    offsets = np.arange(-reach, reach + 1)
    middle = centers.reshape(-1, 2)
    columns = np.floor(middle[:, :1]).astype(int) + offsets
    rows = np.floor(middle[:, 1:]).astype(int) + offsets
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    patch = cover[frame, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    x, y = (columns + 0.5).astype(np.float64), (rows + 0.5).astype(np.float64)
    away = _squared(x, y, middle)
    for shift in range(1, found.count):
        # What is nearer to another object belongs to it.
        inside &= away < _squared(x, y, np.roll(centers, shift, axis=0).reshape(-1, 2))
    dx, dy = (x - middle[:, :1])[:, None, :], (y - middle[:, 1:])[:, :, None]
    return patch, dx.astype(np.float32), dy.astype(np.float32), inside.astype(np.float32)


def _squared(x: Floats, y: Floats, points: Floats) -> Floats:
    squared: Floats = (x - points[:, :1])[:, None, :] ** 2 + (y - points[:, 1:])[:, :, None] ** 2
    return squared


def read_size(radius_ratio: float) -> tuple[str, float]:
    """The word for a radius in sides of the picture, and confidence."""
    size = "small" if radius_ratio < _SMALL_BELOW else "large" if radius_ratio > LARGE_RATIO else "medium"
    nearest = min(abs(radius_ratio / limit - 1) for limit in (_SMALL_BELOW, LARGE_RATIO))
    return size, float(1 - np.exp(-nearest / 0.03))
