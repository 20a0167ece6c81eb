"""A picture of how well scores agree with ratings."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from telecine_components.curate.learn.judging import Bin
from telecine_components.curate.suitability.model import HIGHEST, LOWEST, THRESHOLD

_DPI = 100
_SPREAD = 0.03


def draw(path: Path, scores: npt.NDArray[np.float64], quality: npt.NDArray[np.float64], bins: Sequence[Bin]) -> None:
    """Each held-out clip as a dot, the mean rating of each step as a line, and where they would agree."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([LOWEST, HIGHEST], [LOWEST, HIGHEST], color="grey", linewidth=0.8, label="agreement")
    # Planted and mean ratings are few different numbers; spread a little, so that dots do not hide each other.
    spread = np.random.default_rng(0).normal(0, _SPREAD, len(quality))
    axes.scatter(scores, quality + spread, s=8, alpha=0.4, label="a held-out clip")
    axes.plot(
        [each.mean_score for each in bins], [each.mean_rating for each in bins], "o-", color="tab:red", label="mean"
    )
    for line in (axes.axvline, axes.axhline):
        line(THRESHOLD, color="black", linewidth=0.5, linestyle=":")
    axes.set(xlabel="score by a model that did not see the source", ylabel="rating", xlim=(0.9, 5.1), ylim=(0.8, 5.2))
    axes.legend(loc="upper left", fontsize="small")
    with matplotlib.rc_context({"svg.hashsalt": ""}):
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
