"""Thresholds on every measure at once, tuned together to find the good clips."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.curate.suitability.fit import Direction

_QUANTILES = np.linspace(0, 1, 41)
_MAX_SWEEPS = 20

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Thresholds:
    """Clips are kept that exceed none.

    Attributes:
        limits: one for each direction, in units of its measure times its sign; infinite where it is off.
    """

    directions: tuple[Direction, ...]
    limits: Floats

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> Flags:
        """Which clips are kept."""
        return _passes(_signed(rows, self.directions), self.limits)


def f1(kept: Flags, good: Flags) -> float:
    """Harmonic mean of precision and recall of the good; 0 where none is kept."""
    both = int((kept & good).sum())
    return 2 * both / max(1, int(kept.sum()) + int(good.sum()))


def tuned(
    rows: Sequence[Mapping[str, Any]], good: Flags, directions: Sequence[Direction], *, num_starts: int, seed: int
) -> Thresholds:
    """Thresholds of the highest F1 that coordinate ascent finds from several starts.

    The first start has every threshold off; the others set each to a quantile drawn at random. In each sweep all
    thresholds are visited in a random order, and each is set to the best of 41 quantiles of its measure, or off.
    """
    values = _signed(rows, directions)
    grid = np.concatenate([np.quantile(values, _QUANTILES, axis=0), np.full((1, len(directions)), np.inf)])
    rng = np.random.default_rng(seed)
    best, best_f1 = np.full(len(directions), np.inf), -1.0
    for start in range(num_starts):
        # High quantiles, because low ones of fifteen measures together would keep nothing to begin with.
        drawn = rng.integers(len(grid) // 2, len(grid), len(directions))
        begun = grid[-1] if start == 0 else grid[drawn, np.arange(len(directions))]
        limits, reached = _ascended(values, good, grid, begun.copy(), rng)
        if reached > best_f1:
            best, best_f1 = limits, reached
    return Thresholds(tuple(directions), best)


def _ascended(
    values: Floats, good: Flags, grid: Floats, limits: Floats, rng: np.random.Generator
) -> tuple[Floats, float]:
    reached = f1(_passes(values, limits), good)
    for _ in range(_MAX_SWEEPS):
        before = reached
        for place in rng.permutation(len(limits)):
            others = _passes(np.delete(values, place, axis=1), np.delete(limits, place))
            found = [f1(others & (values[:, place] <= limit), good) for limit in grid[:, place]]
            # The loosest of the best, which rejects least without a reason.
            loosest = len(found) - 1 - int(np.argmax(found[::-1]))
            if found[loosest] >= reached:
                limits[place], reached = grid[loosest, place], found[loosest]
        if reached == before:
            break
    return limits, reached


def _passes(values: Floats, limits: Floats) -> Flags:
    passed: Flags = np.all(values <= limits, axis=1)
    return passed


def _signed(rows: Sequence[Mapping[str, Any]], directions: Sequence[Direction]) -> Floats:
    """Measures [N, J], turned so that more is worse."""
    return np.array([[row[each.measure] * each.sign for each in directions] for row in rows], np.float64)
