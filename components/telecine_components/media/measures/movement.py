"""How a clip moves, from every frame shrunk to a glance: numbers per pair of frames first, then one a clip.

Displacements are shares of the picture's width and height, so they depend neither on its size nor on its aspect.
"""

import numpy as np
import numpy.typing as npt

BANDS = 5
REACH_RATIO = 1 / 6
"""Displacements between two frames are looked for up to this share of the picture."""
SMOOTH_S = 0.5
SHAKE = 0.01
"""Jitter, as a share of the picture, at which stability has fallen to 1/e."""
CLEARLY = 0.7
"""A shift counts if profiles differ less at it than at none, by this factor; in noise they differ alike at all."""
FLAT_SLOPE = 20.0
"""Levels per picture that count as slope everywhere, so that rounding in a flat picture is no motion."""
BINOMIAL = (1, 4, 6, 4, 1)
STILL_LEVELS, STILL_RATIO = 4, 0.001
"""Less is what an encoder refines from frame to frame of a still, up to 3 levels of a glance at a CRF of 18."""
LEAST_FREEZE_S = 0.2
FLICKER_GAIN = 10.0

Lumas = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]
Profiles = npt.NDArray[np.float32]


def flow(lumas: Lumas) -> Numbers:
    """Displacement between successive pictures [F, h, w] -> [F - 1], as a share of the picture.

    The gradient-weighted mean of the normal flow: sum |dI/dt| over sum |grad I|. It hardly depends on contrast, counts
    what moves before a still background, and saturates for displacements beyond the size of the details.
    """
    values = lumas.astype(np.int16)
    change = np.abs(values[1:] - values[:-1]).mean(axis=(1, 2))
    # A step over one pixel is a step over 1/w or 1/h of the picture.
    across = np.abs(values[:, :, 1:] - values[:, :, :-1]).mean(axis=(1, 2)) * lumas.shape[2]
    down = np.abs(values[:, 1:] - values[:, :-1]).mean(axis=(1, 2)) * lumas.shape[1]
    steepness = FLAT_SLOPE + across + down
    moved: Numbers = np.minimum(REACH_RATIO, 2 * change / (steepness[1:] + steepness[:-1]))
    return moved


def displacement(lumas: Lumas) -> Numbers:
    """Displacement of the whole picture between successive ones [F, h, w] -> [F - 1, 2]: right and down, in shares.

    The picture is summed along five bands into profiles. The shift at which two of them differ least (variance of the
    difference) is that band's displacement, and what is left between whole pixels follows from the profile's slope
    (Lucas and Kanade 1981, in one dimension). The middle one of the five counts, so that one thing that moves by
    itself does not pass for the camera. As exact as two-dimensional phase correlation on what is shrunk this far, at a
    fraction of its cost.
    """
    levels = lumas.astype(np.float32)
    right, down = _shift(_profiles(levels)), _shift(_profiles(levels.swapaxes(1, 2)))
    return np.stack([np.median(right, axis=0) / lumas.shape[2], np.median(down, axis=0) / lumas.shape[1]], axis=1)


def _profiles(levels: Profiles) -> Profiles:
    """Means over each band of rows of pictures [F, n, m] -> [BANDS, F, m].

    They are smoothed by binomial sums over five pixels: an edge must be wider than a pixel for what lies between two.
    """
    band = np.arange(levels.shape[1]) * BANDS // levels.shape[1]
    which = (band == np.arange(BANDS)[:, None]).astype(np.float32)
    # Whole levels add up to the same in whatever order.
    sums = np.moveaxis(which @ levels, 1, 0)
    padded = np.pad(sums, ((0, 0), (0, 0), (2, 2)), mode="edge")
    smooth = sum(weight * padded[..., tap : tap + sums.shape[-1]] for tap, weight in enumerate(BINOMIAL))
    return np.asarray(smooth / (sum(BINOMIAL) * which.sum(axis=1)[:, None, None]), np.float32)


def _shift(profiles: Profiles) -> Numbers:
    """Shift in pixels between successive profiles [B, F, n] -> [B, F - 1]; 0 where nothing tells."""
    size = profiles.shape[-1]
    before, after = (part.reshape(-1, size) for part in (profiles[:, :-1], profiles[:, 1:]))
    reach = max(1, round(size * REACH_RATIO))
    steps = sorted(range(-reach, reach + 1), key=abs)
    costs = np.stack([_variance(_overlap(before, after, step)[1]) for step in steps])
    best = np.where(costs.min(axis=0) < CLEARLY * costs[0], costs.argmin(axis=0), 0)
    shifts = np.empty(len(before))
    for place in np.unique(best):
        pairs = best == place
        shifts[pairs] = steps[place] + _rest(*_overlap(before[pairs], after[pairs], steps[place]))
    return shifts.reshape(len(profiles), -1)


def _variance(rows: Profiles) -> Profiles:
    variance: Profiles = np.einsum("fn,fn->f", rows, rows) / rows.shape[1] - np.square(rows.mean(axis=1))
    return variance


def _overlap(before: Profiles, after: Profiles, step: int) -> tuple[Profiles, Profiles]:
    """(earlier profile, later minus earlier) where they overlap when the later one is moved back by ``step``."""
    length = before.shape[1]
    earlier = before[:, max(0, -step) : length - max(0, step)]
    return earlier, after[:, max(0, step) : length + min(0, step)] - earlier


def _rest(earlier: Profiles, change: Profiles) -> Numbers:
    """The part of a pixel by which profiles [F, n] moved further."""
    slope = np.gradient(earlier + change / 2, axis=1)
    change = change - change.mean(axis=1, keepdims=True)
    rest = -(slope * change).sum(axis=1) / np.maximum(1.0, np.square(slope).sum(axis=1))
    clipped: Numbers = np.clip(rest, -0.5, 0.5)
    return clipped


def changed(lumas: Lumas) -> Numbers:
    """Share of the picture [F, h, w] that is not as it was in the one before -> [F - 1]."""
    change = np.abs(lumas[1:].astype(np.int16) - lumas[:-1])
    shares: Numbers = (change >= STILL_LEVELS).mean(axis=(1, 2))
    return shares


def motion(flows: Numbers, displacements: Numbers, seconds: float) -> float:
    """Frame sizes per second: flow, or the displacement of the whole picture where that is more, over the time."""
    moved = np.maximum(flows, np.hypot(displacements[:, 0], displacements[:, 1]))
    return float(moved.sum() / seconds) if len(moved) else 0.0


def stability(displacements: Numbers, fps: float) -> float:
    """1 steady .. 0 shaken: exp(-jitter / SHAKE), jitter being how far the picture lies from its smoothed path.

    The median distance, in shares of the picture, between the sum of displacements and its mean over half a second: a
    smooth pan has none however fast it is, and a single jolt does not count.
    """
    if len(displacements) < 2:
        return 1.0
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(displacements, axis=0)])
    off = np.hypot(_roughness(path[:, 0], fps), _roughness(path[:, 1], fps))
    return float(np.exp(-np.median(off) / SHAKE))


def freeze(changes: Numbers, fps: float) -> float:
    """Share of the pairs of frames that belong to a standstill of LEAST_FREEZE_S or more, in which nothing changes.

    Shorter ones are animation drawn for fewer frames a second.
    """
    still = np.concatenate([[False], changes <= STILL_RATIO, [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(still) == 1), np.flatnonzero(np.diff(still) == -1)
    runs = ends - starts
    return float(runs[runs >= LEAST_FREEZE_S * fps].sum() / len(changes)) if len(changes) else 0.0


def flicker(brightness: Numbers, fps: float) -> float:
    """Jumps of the mean brightness [F] (0..1), 0 none .. 1: FLICKER_GAIN times its mean distance from its own mean over
    half a second, so that a fade or a cloud is none.
    """
    return min(1.0, FLICKER_GAIN * float(_roughness(brightness, fps).mean())) if len(brightness) > 2 else 0.0


def _roughness(values: Numbers, fps: float) -> Numbers:
    """Distance of values [F] from their mean over SMOOTH_S; beyond the ends they are continued as they came."""
    half = min(max(1, round(SMOOTH_S * fps / 2)), len(values) - 1)
    padded = np.pad(values, half, mode="reflect", reflect_type="odd")
    return np.abs(values - np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid"))
