"""Each arm at the best of its learning rates, by seeds that no one reports on; then every arm on the reported seeds."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runs import Outcome, Task

Runs = Callable[[Sequence[Task]], list[Outcome]]
Make = Callable[[str, int, float], Task]
"""(arm, seed, learning rate) to the run."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The mean of a figure, lower is better, at each learning rate that an arm was tried with.

    Raises:
        ValueError: all came to no number.
    """

    figure: str
    means: Mapping[float, float]

    def __post_init__(self) -> None:
        if not any(map(math.isfinite, self.means.values())):
            raise ValueError(f"tuning: {self.figure} must be a number for one rate at least, got {dict(self.means)}")

    @property
    def best(self) -> float:
        """The rate with the lowest mean; never one that came to no number."""
        finite = {rate: mean for rate, mean in self.means.items() if math.isfinite(mean)}
        return min(finite, key=lambda rate: finite[rate])

    @property
    def is_at_edge(self) -> bool:
        """Whether a better rate may lie beyond those that were tried."""
        return self.best in (min(self.means), max(self.means))


def tuned(
    runs: Runs, make: Make, rates: Mapping[str, Sequence[float]], seeds: Sequence[int], figure: str
) -> dict[str, Tuned]:
    """Try each arm's rates on each seed, all side by side.

    Raises:
        ValueError: arms with unequally many rates, whose tuning budgets would differ.
    """
    if len({len(tried) for tried in rates.values()}) > 1:
        raise ValueError(f"tuned: rates must be equally many for each arm, got {dict(rates)}")
    tasks = [make(arm, seed, rate) for arm, tried in rates.items() for rate in tried for seed in seeds]
    done = iter(runs(tasks))
    return {
        arm: Tuned(figure, {rate: float(np.mean([next(done).figures[figure] for _ in seeds])) for rate in tried})
        for arm, tried in rates.items()
    }


def reported(runs: Runs, make: Make, rates: Mapping[str, float], seeds: Sequence[int]) -> dict[str, list[Outcome]]:
    """Each arm at its rate on each seed, in the order of the seeds."""
    done = iter(runs([make(arm, seed, rate) for arm, rate in rates.items() for seed in seeds]))
    return {arm: [next(done) for _ in seeds] for arm in rates}


def table(found: Mapping[str, Tuned]) -> dict[str, dict[str, Any]]:
    """For the page: what was tried, what it came to, what was taken."""
    return {
        arm: {
            "learning rates": list(each.means),
            f"{each.figure.replace('_', ' ')} on tuning seeds": list(each.means.values()),
            "taken": each.best,
            "taken is the first or last": each.is_at_edge,
        }
        for arm, each in found.items()
    }
