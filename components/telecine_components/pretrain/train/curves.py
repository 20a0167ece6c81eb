"""The loss curves as a picture."""

from pathlib import Path
from typing import Any

import matplotlib.figure


def plot_losses(document: dict[str, Any], path: Path) -> None:
    """Draw training and held-out loss over steps, with the mean predictor as a line, into a PNG.

    Args:
        document: what pretrain.train writes to ``training.json``.
    """
    figure = matplotlib.figure.Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, label, style in (("train/loss", "training", {"alpha": 0.6}), ("eval/loss", "held out", {"marker": "o"})):
        points = document["history"].get(name, [])
        axes.plot([step for step, _ in points], [value for _, value in points], label=label, **style)
    axes.axhline(document["held_out"]["loss"]["mean_predictor"], linestyle="--", color="grey", label="mean predictor")
    axes.set(xlabel="step", ylabel="flow-matching loss", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Software": None})
