"""How sure a figure over a few paired runs is."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

RESAMPLES = 2000
MIN_PAIRS = 5
"""Resampling fewer pairs gives little more than their range."""
Pair = TypeVar("Pair")


def bootstrap(figure: Callable[[Sequence[Pair]], float], pairs: Sequence[Pair]) -> tuple[float, float]:
    """Low and high end of the 95 % percentile bootstrap interval of a figure over pairs of runs."""
    picks = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    low, high = np.percentile([figure([pairs[index] for index in pick]) for pick in picks], (2.5, 97.5))
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Low and high end of a figure, and what these are, in words."""

    low: float
    high: float
    kind: str


def spread(figure: Callable[[Sequence[Pair]], float], pairs: Sequence[Pair]) -> Spread:
    """The interval of :func:`bootstrap`; for a handful of pairs the range of their figures, which is said instead."""
    if len(pairs) < MIN_PAIRS:
        single = [figure([pair]) for pair in pairs]
        return Spread(min(single), max(single), f"min..max of {len(pairs)}")
    return Spread(*bootstrap(figure, pairs), "95 % bootstrap interval")
