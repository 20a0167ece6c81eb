"""How many clips each cluster keeps, and which."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_HALVINGS = 64

Counts = npt.NDArray[np.int64]

# What a cluster of a size may keep at a level, which is then set so that the total comes out.
RULES: dict[str, Callable[[npt.NDArray[np.float64], float], npt.NDArray[np.float64]]] = {
    "sqrt": lambda sizes, level: np.minimum(sizes, level * np.sqrt(sizes)),
    "cap": lambda sizes, level: np.minimum(sizes, level),
    "none": lambda sizes, level: sizes * min(1.0, level),
}


def quotas(sizes: Counts, total: int, rule: str) -> Counts:
    """Clips [K] to keep of clusters of ``sizes`` [K]: ``total`` in all, never more than there are.

    "sqrt" draws each clip with a probability that goes with 1 / sqrt(size), as Movie Gen does (arXiv 2410.13720);
    clusters too small for their share are kept whole, and the others take what they leave.
    """
    total = min(total, int(sizes.sum()))
    low, high = 0.0, float(sizes.max(initial=1))
    for _ in range(NUM_HALVINGS):
        level = (low + high) / 2
        enough = RULES[rule](sizes.astype(np.float64), level).sum() >= total
        low, high = (low, level) if enough else (level, high)
    shares = RULES[rule](sizes.astype(np.float64), high)
    # Whole numbers: the largest remainders are rounded up, the first of equal ones.
    kept = np.floor(shares + 1e-6).astype(np.int64)
    order = np.argsort(kept - shares, kind="stable")
    kept[order[: total - int(kept.sum())]] += 1
    return kept


def chosen(rows: Sequence[Mapping[str, Any]], number: int, *, seed: int) -> set[str]:
    """Ids of the ``number`` most suitable clips of a cluster; chance decides between equals, and it knows the seed."""

    def rank(row: Mapping[str, Any]) -> tuple[float, bytes]:
        drawn = hashlib.sha256(f"{seed}:{row['clip_id']}".encode()).digest()
        return -(row["suitability"] or 0.0), drawn

    return {row["clip_id"] for row in sorted(rows, key=rank)[:number]}
