"""From rewards to a verdict: means, win rate, and intervals over prompts.

The films of one prompt are alike, so prompts are what the bootstrap resamples.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 10_000


def verdict(model: Floats, reference: Floats, *, tie_margin: float, seed: int) -> dict[str, Any]:
    """Figures of rewards [prompts, seeds] of two models on equal noise; intervals are 95 % percentile bootstraps."""
    gain = model - reference
    wins = np.where(np.abs(gain) < tie_margin, 0.5, (gain > 0).astype(np.float64))
    chosen = np.random.Generator(np.random.PCG64(seed)).integers(0, len(gain), size=(NUM_RESAMPLES, len(gain)))
    figures: dict[str, Any] = {"reward": float(model.mean()), "reward_reference": float(reference.mean())}
    for name, per_prompt in (("reward_gain", gain.mean(axis=1)), ("win_rate", wins.mean(axis=1))):
        low, high = np.quantile(per_prompt[chosen].mean(axis=1), (0.025, 0.975))
        figures |= {name: float(per_prompt.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    return figures
