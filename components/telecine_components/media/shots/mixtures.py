"""Evidence of dissolves and fades: a stretch in which every frame is a mixture of its two ends.

In a dissolve of shots a and b, a frame is (1 - w) a + w b; in a fade by way of a plain colour it is first less and less
of a, then more and more of b. Both are mixtures ``x a + y b`` of what is seen, apart from brightness. A camera that
moves shows, in between, what neither end shows. The best x and y and what they leave unexplained are formulas of inner
products (least squares in two variables).
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_components.media.shots.products import NOISE_POWER, Floats, Products
from telecine_components.media.shots.weights import MIXTURE_BIAS, MIXTURE_WEIGHTS

LENGTHS = (3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 17, 20, 23, 26, 29, 32)
"""Pairs that a stretch may cover."""
CONTEXT_FRAMES = LENGTHS[-1] + LENGTHS[-1] // 2
"""Frames on either side on which the evidence of a pair may depend."""
FADE_DIP = 0.45
"""A stretch whose contrast falls below this share of its ends' is a fade, not a dissolve."""
_LEAST_SUM = 0.2
"""What shows contrast, but neither end, is no dissolve: a camera swings by."""
_STILL_POWER = 1.0
"""Added to the change, a square in grey levels, before it divides: noise is no motion."""
_UNCHANGED = 0.06
"""Share of the way that counts as none, so that a stretch that is too long ends where the transition does."""
_FADE_UNLIKE = 0.35
"""Frames right before and after its darkest moment are unlike in a fade. In a flash or a blackout they are not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Mixtures:
    """Of the stretches of one length that start at each frame [N]: how well they are mixtures of their ends.

    Attributes:
        unlike: one minus the correlation of the ends.
        distance: of the ends, in grey levels.
        unexplained: share of what is seen in between that is no mixture of the ends.
        detour: how much the mixture goes back and forth, 0 for never.
        steps: change of the mixture over each pair [length, N]; they sum to 1.
        least_sum: smallest x + y in between, 1 in a dissolve, 0 in a fade.
        dip: least contrast in between over that of the ends.
        contrast: lesser contrast of the ends.
        turn: largest unlikeness of the frames right before and right after a moment in between.
    """

    unlike: Floats
    distance: Floats
    unexplained: Floats
    detour: Floats
    steps: Floats
    least_sum: Floats
    dip: Floats
    contrast: Floats
    turn: Floats


def mixture_evidence(products: Products, length: int) -> tuple[Floats, Mixtures]:
    """Log odds, for each frame at which a stretch of ``length`` pairs may start [F - length], of a transition there.

    It is -inf where nothing speaks for one. What was found of each stretch says more.
    """
    found = mixtures(products, length)
    features = mixture_features(products, found, length)
    evidence = MIXTURE_BIAS + sum(MIXTURE_WEIGHTS[name] * values for name, values in features.items())
    return np.where(plausible(found), evidence, -np.inf), found


def extent(found: Mixtures, start: int) -> tuple[int, int]:
    """First and last pair, of the stretch that starts at ``start``, in which the mixture changes."""
    progress = np.cumsum(found.steps[:, start])
    first = int(np.argmax(progress > _UNCHANGED))
    last = int(np.argmax(progress >= 1 - _UNCHANGED))
    return start + first, start + max(first, last)


def plausible(found: Mixtures) -> npt.NDArray[np.bool_]:
    """Which stretches are worth a second look [N]."""
    seen = (found.unlike > 0.12) & (found.distance > 8) & (found.unexplained < 0.6)
    seen &= np.where(found.dip < FADE_DIP, found.turn > _FADE_UNLIKE, found.least_sum > _LEAST_SUM)
    worth: npt.NDArray[np.bool_] = seen & (found.steps.max(axis=0) < 0.75) & (found.detour < 1.5)
    return worth


def mixtures(products: Products, length: int) -> Mixtures:
    """Fit every stretch of ``length`` pairs."""
    varied, num = products.varied, len(products) - length
    left, right, both = varied[0, :num], varied[0, length : length + num], varied[length, :num]
    determinant = np.maximum(left * right - both * both, 1e-9)
    least_power, left_over, power_sum = np.full(num, np.inf), np.zeros(num), np.zeros(num)
    least_sum, places = np.full(num, np.inf), [np.full(num, -1.0)]
    for step in range(1, length):
        to_left, to_right = varied[step, :num], varied[length - step, step : step + num]
        power = varied[0, step : step + num]
        x = (to_left * right - to_right * both) / determinant
        y = (to_right * left - to_left * both) / determinant
        left_over += np.maximum(power - (x * to_left + y * to_right), 0)
        power_sum += power + NOISE_POWER
        least_power, least_sum = np.minimum(least_power, power), np.minimum(least_sum, x + y)
        places.append(y - x)
    steps = np.diff(np.stack([*places, np.full(num, 1.0)]), axis=0) / 2
    lesser = np.minimum(left, right)
    return Mixtures(
        unlike=products.unlikeness(length)[:num],
        distance=products.distance(length),
        unexplained=left_over / power_sum,
        detour=np.abs(steps).sum(axis=0) - 1,
        steps=steps,
        least_sum=least_sum,
        dip=np.sqrt((least_power + NOISE_POWER) / (lesser + NOISE_POWER)),
        contrast=np.sqrt(lesser),
        turn=np.lib.stride_tricks.sliding_window_view(products.lasting_change[1], length)[:num].max(axis=1),
    )


def mixture_features(products: Products, found: Mixtures, length: int) -> dict[str, Floats]:
    """What speaks for and against a transition over each stretch [N], by name."""
    change = products.distance(1)
    total = np.concatenate([[0.0], np.cumsum(change)])
    num, quarter = len(found.unlike), length // 4
    path = total[length : length + num] - total[:num]
    core = total[length - quarter : length - quarter + num] - total[quarter : quarter + num]
    largest = np.lib.stride_tricks.sliding_window_view(change, length)[:num].max(axis=1)
    moved, unlike_moved = _outside(products, length, num)
    calm, busy = (np.sort(moved / (found.distance + 1), axis=0)[row] for row in (0, 1))
    steepest, busy_log = _log(length * found.steps.max(axis=0), 0.1), _log(busy, 0.05)
    unexplained = _log(found.unexplained, 0.02)
    moving = _log(_over(products.unmoved, length) / (_over(products.change, length) + _STILL_POWER), 0.05)
    return {
        "unlike": _log(found.unlike, 0.05),
        "distance": np.log(found.distance + 1),
        "contrast": np.log(found.contrast + 1),
        "length": np.full(num, np.log(length)),
        # How good a mixture it is.
        "unexplained": unexplained,
        "unexplained_much": np.maximum(0, unexplained + 1.5),
        "detour": np.minimum(found.detour, 2),
        "least_sum": np.clip(found.least_sum, -1, 2),
        "dip": _log(found.dip, 0.05),
        # How evenly it goes: a cut is one step, and a stretch that is too long begins and ends with none.
        "steepest": steepest,
        "steepest_squared": steepest**2,
        "edges": _log(length * np.minimum(found.steps[0], found.steps[-1]), 0.1),
        "largest_change": _log(largest / (path + 1) * length, 0.1),
        "core_squared": np.log(core / (path + 1) * length / (length - 2 * quarter) + 0.05) ** 2,
        "straight": _log(found.distance / (path + 1), 0.05),
        # How much the shots move by themselves, before and after, in half the time.
        "calm_side": _log(calm, 0.05),
        "busy_side": busy_log,
        "busy_side_much": np.maximum(0, busy_log + 0.7),
        "busy_and_long": busy_log * np.log(length),
        # How little of what changes is the picture moving as a whole.
        "unmoved": moving,
        "unmoved_little": np.maximum(0, -1.0 - moving),
        "unmoved_and_long": moving * np.log(length),
        "unlike_outside": _log(unlike_moved / (found.unlike + 0.02), 0.05),
    }


def _over(values: Floats, length: int) -> Floats:
    """Sum of a pair's values over each stretch [F - length]."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    sums: Floats = total[length:] - total[:-length]
    return sums


def _outside(products: Products, length: int, num: int) -> tuple[Floats, Floats]:
    """Distance before and after each stretch [2, N], and the larger unlikeness, both over half its length.

    Where the film begins or ends too near, the stretch's own first or last half stands in: what moves all the time
    moves there too, and a transition is half done.
    """
    half = max(2, length // 2)
    sides = []
    for values in (products.distance(half), products.unlikeness(half)):
        before, after = values[:num].copy(), values[length - half : length - half + num].copy()
        earlier, later = values[: max(0, num - half)], values[length : length + num]
        before[half:], after[: len(later)] = earlier, later
        sides.append(np.stack([before, after]))
    return sides[0], sides[1].max(axis=0)


def _log(values: Floats, floor: float) -> Floats:
    """Logarithm of values that are not negative, or nearly so."""
    logarithm: Floats = np.log(np.maximum(values, 0) + floor)
    return logarithm
