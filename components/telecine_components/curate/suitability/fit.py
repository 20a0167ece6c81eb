"""Fit the suitability model to clips of known quality. The same clips give the same model.

Knees come from the best clips, what ruins a clip is declared. Strengths are fitted to all clips by least squares, none
below 0, and are drawn towards their common mean: a measure in which no clip of the training went wrong counts as much
as the others do on average, which is how faults are found that were in none of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from telecine_components.curate.suitability.model import HIGHEST, LOWEST, RUINED, Model, Penalty

SHARING = 0.1
"""How hard strengths are drawn to their mean: the weight of their variance beside the mean squared error."""
BEST_RATIO = 0.2
"""The best clips, of which a measure's usual values are taken."""
KNEE = 0.99
"""Quantile of a measure among the best clips from which on it costs something."""
_ROUNDS, _STEPS, _SWEEPS = 5, 40, 200
_LEAST_GAIN = 1e-9
_DIGITS = 6

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Direction:
    """An end of a measure that is known to be bad.

    Attributes:
        ruin: a value that ruins a clip: the end of what the measure reaches where it has one.
        least: a knee is at least so far from ruin, and differences much smaller than this are of no account.
    """

    measure: str
    ruin: float
    least: float
    bad: Literal["low", "high"] = "high"

    @property
    def sign(self) -> float:
        """1 where more is worse."""
        return 1.0 if self.bad == "high" else -1.0


DIRECTIONS = (
    Direction("motion", 0.0, 0.01, "low"),
    Direction("motion", 2.0, 0.1),
    Direction("stability", 0.0, 0.05, "low"),
    Direction("freeze", 1.0, 0.05),
    Direction("flicker", 0.2, 0.01),
    Direction("blur", 0.9, 0.02),
    Direction("noise", 0.15, 0.003),
    Direction("blockiness", 1.0, 0.02),
    Direction("exposure", 0.0, 0.03, "low"),
    Direction("exposure", 0.8, 0.03),
    Direction("contrast", 0.0, 0.05, "low"),
    Direction("clipping", 0.5, 0.02),
    Direction("black_bars", 0.5, 0.02),
    Direction("overlay_text", 0.15, 0.005),
    Direction("logo", 1.0, 0.1),
)
"""What is learned from. Bits per pixel say more of the codec than of the picture, grey film is a style, and the
aesthetic proxy is a sum of others in this list."""


def fit(
    rows: Sequence[Mapping[str, Any]],
    quality: Floats,
    *,
    truth: str,
    sharing: float = SHARING,
    directions: Sequence[Direction] = DIRECTIONS,
) -> Model:
    """The model that comes nearest to the quality of clips.

    Args:
        rows: of the manifest, with every measure.
        quality: 1 .. 5 for each.
        truth: where the quality comes from.
    """
    signs = np.array([each.sign for each in directions])
    values = np.array([[row[each.measure] for each in directions] for row in rows], np.float64) * signs
    ruins = np.array([each.ruin for each in directions]) * signs
    usual = values[quality >= np.quantile(quality, 1 - BEST_RATIO)]
    knees = np.minimum(np.quantile(usual, KNEE, axis=0), ruins - [each.least for each in directions])
    faults = np.clip((values - knees) / (ruins - knees), 0, 1)
    strengths, worst, best = _strengths(-np.log1p(-RUINED * faults), quality, sharing)
    penalties = (
        Penalty(
            measure=each.measure,
            knee=round(float(each.sign * knee), _DIGITS),
            ruin=each.ruin,
            strength=round(float(strength), _DIGITS),
        )
        for each, knee, strength in zip(directions, knees, strengths, strict=True)
    )
    return Model(penalties=tuple(penalties), worst=round(worst, _DIGITS), best=round(best, _DIGITS), truth=truth)


def _strengths(costs: Floats, quality: Floats, sharing: float) -> tuple[Floats, float, float]:
    """Strengths [J] and the ends of the scale, in turns."""
    strengths, worst, best = np.ones(costs.shape[1]), LOWEST, HIGHEST
    for _ in range(_ROUNDS):
        strengths = _least_squares(costs, (quality - worst) / (best - worst), strengths, sharing)
        worst, best = _ends(np.exp(-costs @ strengths), quality)
    return strengths, worst, best


def _ends(kept: Floats, quality: Floats) -> tuple[float, float]:
    """The straight line from what is kept to the quality, held within the scale: its values at 0 and at 1."""
    if np.ptp(kept) == 0:
        return LOWEST, HIGHEST
    slope, worst = np.polyfit(kept, quality, 1)
    worst = float(np.clip(worst, LOWEST, HIGHEST - 1))
    return worst, float(np.clip(worst + slope, worst + 1, HIGHEST))


def _least_squares(costs: Floats, kept: Floats, start: Floats, sharing: float) -> Floats:
    """Strengths w >= 0 that minimise the mean of (exp(-costs w) - kept)^2 plus sharing times the variance of w.

    Levenberg and Marquardt's steps, each a quadratic problem with bounds.
    """
    num_clips, num_measures = costs.shape
    together = sharing * (np.eye(num_measures) - 1 / num_measures) / num_measures

    def loss(w: Floats) -> float:
        return float(np.square(np.exp(-costs @ w) - kept).mean() + w @ together @ w)

    strengths, damping, now = start, 1e-3, loss(start)
    for _ in range(_STEPS):
        guess = np.exp(-costs @ strengths)
        slope = -costs * guess[:, None]
        matrix = slope.T @ slope / num_clips + together + damping * np.eye(num_measures)
        target = slope.T @ (slope @ strengths - (guess - kept)) / num_clips + damping * strengths
        tried = _bounded(matrix, target, strengths)
        after = loss(tried)
        if after >= now:
            damping *= 5
            continue
        gain, strengths, now, damping = now - after, tried, after, damping / 3
        if gain < _LEAST_GAIN:
            break
    return strengths


def _bounded(matrix: Floats, target: Floats, start: Floats) -> Floats:
    """The w >= 0 that minimises w A w / 2 - b w, one coordinate after the other."""
    found = start.copy()
    for _ in range(_SWEEPS):
        for index in range(len(found)):
            found[index] += (target[index] - matrix[index] @ found) / matrix[index, index]
            found[index] = max(0.0, found[index])
    return found
