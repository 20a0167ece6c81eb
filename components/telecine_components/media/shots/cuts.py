"""Evidence of hard cuts: a pair of frames that differ more than those around them, and not for a moment only."""

import numpy as np
import numpy.typing as npt

from telecine_components.media.shots.products import Floats, Products
from telecine_components.media.shots.weights import CUT_BIAS, CUT_WEIGHTS

CONTEXT_FRAMES = 16
_SIDE_PAIRS, _WIDE_SIDE_PAIRS = 8, 12
_LEVEL = 2.0
"""Grey levels added to distances before they divide, so that noise on a still picture is no change."""
_SHARE = 0.05
"""The same for unlikeness."""


def cut_evidence(products: Products) -> Floats:
    """Log odds of a hard cut for each pair [F - 1]; -inf where nothing speaks for one."""
    features = cut_features(products)
    evidence = CUT_BIAS + sum(CUT_WEIGHTS[name] * values for name, values in features.items())
    return np.where(plausible(features), evidence, -np.inf)


def plausible(features: dict[str, Floats]) -> npt.NDArray[np.bool_]:
    """Which pairs are worth a second look."""
    stands_out = (features["peak_2"] > -0.1) | (features["unlike_peak_ratio"] > 0.5)
    worth: npt.NDArray[np.bool_] = stands_out & (features["change"] > 1.2)
    return worth


def cut_features(products: Products) -> dict[str, Floats]:
    """What speaks for and against a cut at each pair [F - 1], by name."""
    change, unlike = products.distance(1), products.unlikeness(1)
    around, widely, unlike_around = (
        _around(values, side)
        for values, side in ((change, _SIDE_PAIRS), (change, _WIDE_SIDE_PAIRS), (unlike, _SIDE_PAIRS))
    )
    lasting, lasting_unlike = products.lasting_change
    peak, stays = _log_ratio(change, widely[:, -1]), _log_ratio(lasting, change)
    unlike_peak = np.log((unlike + _SHARE) / (unlike_around[:, -1] + _SHARE))
    least_unlike = np.minimum(unlike, lasting_unlike)
    contrast = np.sqrt(np.minimum(products.varied[0, :-1], products.varied[0, 1:]))
    return {
        # How much changes, and how it compares with the largest changes nearby.
        "change": np.log(change + 1),
        "peak_1": _log_ratio(change, around[:, -1]),
        "peak_2": _log_ratio(change, around[:, -2]),
        "peak_wide_1": peak,
        "peak_wide_3": _log_ratio(change, widely[:, -3]),
        "clear_peak": np.maximum(0, peak - 0.7),
        "no_peak": np.maximum(0, 0.35 - peak),
        # Whether the frames before and after stay different: a flash passes.
        "stays": stays,
        "passes": np.maximum(0, -stays - 0.3),
        "stays_over_nearby": _log_ratio(lasting, around[:, -1]),
        # What is seen, apart from brightness and contrast.
        "unlike": unlike,
        "stays_unlike": lasting_unlike,
        "unlike_peak": unlike - unlike_around[:, -1],
        "unlike_peak_ratio": unlike_peak,
        "stays_unlike_ratio": np.log((lasting_unlike + _SHARE) / (unlike_around[:, -1] + _SHARE)),
        "clearest_peak": np.maximum(_log_ratio(change, around[:, -1]), unlike_peak),
        "unlike_nearby": unlike_around[:, -1],
        "alike": np.maximum(0, 0.4 - least_unlike),
        "brightness": np.abs(np.diff(products.brightness)) / (change + 1),
        "contrast": np.log(contrast + 1),
    }


def _log_ratio(over: Floats, under: Floats) -> Floats:
    ratio: Floats = np.log((over + _LEVEL) / (under + _LEVEL))
    return ratio


def _around(values: Floats, side: int) -> Floats:
    """For each value the ``2 * side`` around it, sorted; outside of the film there are zeros."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, side), 2 * side + 1)
    return np.sort(np.delete(windows, side, axis=1), axis=1)
