"""How well the model does on sources that it was not fitted to."""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.curate.suitability.model import HIGHEST, LOWEST, Model

STEP = 0.5

Floats = npt.NDArray[np.float64]
Row = Mapping[str, Any]


def held_out_scores(
    rows: Sequence[Row], quality: Floats, fit: Callable[[Sequence[Row], Floats], Model], *, num_folds: int, seed: int
) -> Floats:
    """The score of each clip by a model that was fitted to the sources of the other folds."""
    names = sorted({row["source"] for row in rows})
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: number % num_folds for number, place in enumerate(order)}
    folds = np.array([fold_of[row["source"]] for row in rows])
    scores = np.zeros(len(rows))
    for fold in range(num_folds):
        held_out = folds == fold
        model = fit([row for row, out in zip(rows, held_out, strict=True) if not out], quality[~held_out])
        scores[held_out] = [model.score(row) for row, out in zip(rows, held_out, strict=True) if out]
    return scores


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation, equal values sharing their mean rank; 0 where all are equal."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    norm = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float(ranks[0] @ ranks[1]) / norm if norm else 0.0


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - 1 - (counts - 1) / 2)[place]
    return ranks


def root_mean_square(errors: Floats) -> float:
    """Typical size of errors."""
    return float(np.sqrt(np.square(errors).mean()))


@dataclasses.dataclass(frozen=True)
class Bin:
    """Clips whose score lies from ``low`` to below ``high``."""

    low: float
    high: float
    num_clips: int
    mean_score: float
    mean_rating: float


def calibration(scores: Floats, quality: Floats) -> list[Bin]:
    """What clips of about the same score were rated; steps without a clip are left out."""
    edges = np.arange(LOWEST, HIGHEST, STEP)
    place = np.searchsorted(edges, scores, side="right") - 1
    found = []
    for index, low in enumerate(edges):
        inside = place == index
        if inside.any():
            means = float(scores[inside].mean()), float(quality[inside].mean())
            found.append(Bin(float(low), float(low) + STEP, int(inside.sum()), *means))
    return found


def as_csv(bins: Sequence[Bin]) -> str:
    """The table as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Bin))
    for each in bins:
        writer.writerow([each.low, each.high, each.num_clips, f"{each.mean_score:.4f}", f"{each.mean_rating:.4f}"])
    return text.getvalue()
