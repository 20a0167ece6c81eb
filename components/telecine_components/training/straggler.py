"""Finds the rank that all others wait for.

Every rank takes part in every step, so the wall time of a step is the same on all of them: what tells them apart is
how long each was busy before it met the others. That is measured by the trainer and compared every few steps.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

SLOW_RATIO = 1.3
"""A rank whose steps take this multiple of the median rank's holds the others up."""
LEAST_S = 5e-3
"""A smaller difference is noise: where ranks meet early in a step, microseconds are all that tells them apart."""

Gather = Callable[[Sequence[float]], list[list[float]]]
"""The numbers of all ranks, from those of this one; called by all at the same step."""


def gather_ranks(values: Sequence[float]) -> list[list[float]]:
    """A few numbers of each rank, in the order of ranks; alone, only this one's."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [list(values)]
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    each = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(each, mine)
    return [rank.tolist() for rank in each]


def slow_ranks(step_s: Sequence[float], *, ratio: float = SLOW_RATIO) -> list[int]:
    """Ranks whose seconds exceed ``ratio`` times the median of all [num_ranks], and by more than noise.

    Of two ranks the faster is the median: the slower cannot be measured by itself.
    """
    middle_s = statistics.median_low(step_s)
    limit_s = max(ratio * middle_s, middle_s + LEAST_S)
    return [rank for rank, seconds in enumerate(step_s) if seconds > limit_s]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Some steps of all ranks.

    Attributes:
        step: optimiser steps done at its end; ``num_steps`` of them are in it.
        busy_s: [num_ranks] seconds for which each was busy with them.
        step_s: [num_ranks] median of its steps: one hiccup makes no straggler.
        slow: ranks that were slow in most of its steps.
        lost_s: seconds of this rank's productive time that a rank as fast as the median would not have cost.
    """

    step: int
    num_steps: int
    busy_s: list[float]
    step_s: list[float]
    slow: list[int]
    lost_s: float

    @property
    def words(self) -> str:
        """Who is slow and how much, in one line; empty where nobody is."""
        middle = statistics.median_low(self.step_s)
        told = [f"rank {rank} takes {self.step_s[rank]:.3g} s a step" for rank in self.slow]
        return f"{', '.join(told)}; the median rank takes {middle:.3g} s" if told else ""


class StragglerWatch:
    """Adds up this rank's steps and compares them with the others' at the end of each window.

    Args:
        rank: this one's.
        window: steps between two comparisons; the same on all ranks.
    """

    def __init__(self, *, rank: int = 0, window: int = 50, gather: Gather = gather_ranks) -> None:
        if window < 1:
            raise ValueError(f"StragglerWatch: window must be at least 1 step, got {window}")
        self._rank, self._window, self._gather = rank, window, gather
        self._busy_s: list[float] = []
        self._data_wait_s = 0.0

    def step(self, step: int, *, compute_s: float, data_wait_s: float = 0.0) -> Window | None:
        """Take a step's times; the window at its end, else None. All ranks meet in the call that ends one.

        Args:
            step: optimiser steps done.
            compute_s: until this rank had to wait for another, the forward pass for instance; on a GPU until the
                kernels are done.
            data_wait_s: time before it, spent on getting the batch.
        """
        self._busy_s.append(compute_s + data_wait_s)
        self._data_wait_s += data_wait_s
        if len(self._busy_s) < self._window:
            return None
        mine = (sum(self._busy_s), statistics.median(self._busy_s), self._data_wait_s)
        busy_s, step_s, data_s = (list(column) for column in zip(*self._gather(mine), strict=True))
        self._busy_s, self._data_wait_s = [], 0.0
        lost_s = max(busy_s) - statistics.median_low(busy_s)
        if busy_s[self._rank] == max(busy_s):
            # What the slowest rank spent on data is in its own ledger as such.
            lost_s = max(0.0, lost_s - max(0.0, data_s[self._rank] - statistics.median_low(data_s)))
        return Window(
            step=step,
            num_steps=self._window,
            busy_s=busy_s,
            step_s=step_s,
            slow=slow_ranks(step_s),
            lost_s=lost_s,
        )
