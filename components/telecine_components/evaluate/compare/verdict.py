"""From rewards to a verdict: means, win rate, and intervals over prompts.

The films of one prompt are alike, so prompts are what an interval is over. Its ends are quantiles of the means of
random subsets of the prompts, each prompt in or out at even odds (J. A. Hartigan, Using Subsample Values as Typical
Values, JASA 64, 1969). Where two models are equal, swapping them changes nothing, so a prompt's figure lies
symmetrically about no effect; the interval then misses no effect as seldom as it says, for any number of prompts, with
ties and with few different values. A bootstrap is too narrow for few prompts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_SUBSETS = 10_000
MISS_RATIO = 0.05
"""How often one of the intervals of all rounds may miss."""


def verdict(model: Floats, reference: Floats, *, tie_margin: float, num_rounds: int, seed: int) -> dict[str, Any]:
    """Figures of rewards [prompts, seeds] in 0 to 1 of two models on equal noise, with their intervals.

    Args:
        num_rounds: how many such verdicts there are of which the best is taken; each interval misses as many times
            less often (Bonferroni).
    """
    gain = model - reference
    wins = np.where(np.abs(gain) <= tie_margin, 0.5, (gain > 0).astype(np.float64))
    subsets = np.random.Generator(np.random.PCG64(seed)).integers(0, 2, size=(NUM_SUBSETS, len(gain)))
    figures: dict[str, Any] = {"reward": float(model.mean()), "reward_reference": float(reference.mean())}
    for name, values, bounds in (("reward_gain", gain, (-1.0, 1.0)), ("win_rate", wins, (0.0, 1.0))):
        low, high = _interval(values.mean(axis=1), subsets, bounds, MISS_RATIO / num_rounds)
        figures |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return figures


def _interval(values: Floats, subsets: npt.NDArray[np.int64], bounds: tuple[float, float], miss: float) -> list[float]:
    """The ends; the subset without a prompt says nothing, so for either end it lies at the far bound."""
    sizes = subsets.sum(axis=1)
    means = subsets @ values / np.maximum(sizes, 1)
    low = np.quantile(np.where(sizes, means, bounds[0]), miss / 2, method="lower")
    high = np.quantile(np.where(sizes, means, bounds[1]), 1 - miss / 2, method="higher")
    return [float(low), float(high)]
