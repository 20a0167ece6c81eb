"""How sure a figure over a few paired runs is."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

RESAMPLES = 2000
Pair = TypeVar("Pair")


def bootstrap(figure: Callable[[Sequence[Pair]], float], pairs: Sequence[Pair]) -> tuple[float, float]:
    """Low and high end of the 95 % percentile bootstrap interval of a figure over pairs of runs.

    With a handful of pairs it is close to their range, and with one pair it says nothing: low and high are equal.
    """
    picks = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    low, high = np.percentile([figure([pairs[index] for index in pick]) for pick in picks], (2.5, 97.5))
    return float(low), float(high)
