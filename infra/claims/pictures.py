"""Pictures of the claims for people: effects by seed, and films as contact sheets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot

_DPI = 80


def effects(row: Mapping[str, Any], path: Path) -> None:
    """Each seed's effect as a dot, the mean with its interval as a bar, zero as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(6, 1.8), layout="constrained")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.scatter(row["effects"], np.zeros(len(row["effects"])), color="tab:blue", alpha=0.6, label="a seed")
    if row["low"] is not None:
        reach = [[row["effect"] - row["low"]], [row["high"] - row["effect"]]]
        axes.errorbar([row["effect"]], [-0.5], xerr=reach, fmt="D", color="tab:red", capsize=4, label="mean, 95 %")
    axes.set(yticks=[], ylim=(-1, 0.6), xlabel=row["unit"], title=f"{row['id']}: {row['reproduced']}")
    figure.legend(loc="outside right upper", fontsize="x-small")  # within, it may hide a seed
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    pyplot.close(figure)


def sheet(films: Mapping[str, Sequence[npt.NDArray[np.uint8]]], path: Path, *, zoom: int = 2) -> None:
    """Films as strips of their frames: a row for each label, its films side by side with a gap between.

    Args:
        films: uint8 [F, H, W, 3] each, all of one size, equally many under each label.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate([_strip(film) for film in line], axis=1) for line in films.values()]
    height, width = (side * zoom / _DPI for side in rows[0].shape[:2])
    figure, axes = pyplot.subplots(
        len(rows), 1, figsize=(width + 1.6, len(rows) * (height + 0.1)), squeeze=False, layout="constrained"
    )
    for axis, label, row in zip(axes[:, 0], films, rows, strict=True):
        axis.imshow(row, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="x-small")
    figure.savefig(path, dpi=_DPI, metadata={"Software": None}, bbox_inches="tight")
    pyplot.close(figure)


def _strip(film: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Frames side by side, and a white gap behind them."""
    strip = np.concatenate(list(film), axis=1)
    return np.concatenate([strip, np.full((strip.shape[0], 4, 3), 255, np.uint8)], axis=1)
