"""The funnel and the histograms as PNG files. Blue and orange (Okabe and Ito) are told apart by every kind of eye."""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from telecine_components.curate.report.facts import Funnel, Measure
from telecine_components.curate.report.figures import hours, limits_of, words

KEPT, LOST, INK, QUIET = "#0072B2", "#E69F00", "#1c2126", "#5d6872"
COLUMNS = 4
MAX_LABEL = 48


def write_funnel(path: Path, funnel: Funnel) -> None:
    """From files to kept clips: a bar a step, of what was left and what the step took off it."""
    bars = [("files", funnel.num_files, 0, funnel.num_files, "")]
    bars += _losses([(kind.name, kind.count, "") for kind in funnel.bad], funnel.num_files)
    bars.append(("clips found", funnel.num_clips, 0, funnel.num_clips, hours(funnel.seconds)))
    bars += _losses([(k.name, k.count, hours(k.seconds)) for k in funnel.rejected], funnel.num_clips)
    bars.append(("clips kept", funnel.kept.count, 0, funnel.num_clips, hours(funnel.kept.seconds)))
    with _plain():
        figure = Figure(figsize=(9, 0.8 + 0.32 * len(bars)), dpi=110, layout="constrained")
        axes = figure.subplots()
        for place, (label, left, lost, total, lasting) in enumerate(bars):
            _bar(axes, place, label, (left / max(total, 1), lost / max(total, 1)), _told(left, lost, total, lasting))
        axes.set(xlim=(0, 1.42), ylim=(len(bars) - 0.4, -0.6), xticks=[], yticks=range(len(bars)))
        axes.set_yticklabels([_short(label.strip()) for label, *_ in bars])
        for name, (label, *_) in zip(axes.get_yticklabels(), bars, strict=True):
            name.set_fontweight("normal" if _is_loss(label) else "bold")
        axes.set_xlabel("orange: what this step took off; pale: what it left", loc="left", color=QUIET, fontsize=9)
        axes.set_title(
            f"{funnel.kept.count:,} of {funnel.num_clips:,} clips kept ({funnel.kept_ratio:.1%})", loc="left"
        )
        _bare(axes)
        figure.savefig(path, metadata={"Software": None})


def write_histograms(path: Path, measures: Sequence[Measure]) -> None:
    """A panel a measure: kept clips, rejected ones on top of them, and the thresholds as dashed lines."""
    with _plain():
        num_rows = -(-len(measures) // COLUMNS)
        figure = Figure(figsize=(13, 0.7 + 2.1 * num_rows), dpi=110, layout="constrained")
        panels = figure.subplots(num_rows, COLUMNS, squeeze=False).ravel()
        for axes, measure in itertools.zip_longest(panels, measures):
            if measure is None:
                axes.set_axis_off()
            else:
                _histogram(axes, measure)
        keys: list[Artist] = [Patch(color=colour) for colour in (KEPT, LOST)]
        keys.append(Line2D([], [], color=INK, linestyle="--"))
        labels = ["kept", "rejected, for whatever reason", "threshold (outermost bars hold what lies beyond)"]
        figure.legend(keys, labels, loc="outside upper left", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Software": None})


def _losses(kinds: Sequence[tuple[str, int, str]], left: int) -> list[tuple[str, int, int, int, str]]:
    total, bars = left, []
    for name, count, lasting in kinds:
        left -= count
        bars.append((f"  {words(name)}", left, count, total, lasting))
    return bars


def _is_loss(label: str) -> bool:
    return label.startswith("  ")


def _told(left: int, lost: int, total: int, lasting: str) -> str:
    number = f"\u2212{lost:,}" if lost else f"{left:,}"
    share = f"{(lost or left) / max(total, 1):.1%}"
    return "   ".join(part for part in (number, share, lasting) if part)


def _bar(axes: Axes, place: int, label: str, shares: tuple[float, float], told: str) -> None:
    left, lost = shares
    axes.barh(place, left, color=KEPT, height=0.72, alpha=0.35 if _is_loss(label) else 1.0)
    axes.barh(place, lost, left=left, color=LOST, height=0.72)
    axes.text(1.02, place, told, va="center", color=INK)


def _histogram(axes: Axes, measure: Measure) -> None:
    widths = measure.edges[1:] - measure.edges[:-1]
    axes.bar(measure.edges[:-1], measure.kept, widths, align="edge", color=KEPT)
    axes.bar(measure.edges[:-1], measure.rejected, widths, bottom=measure.kept, align="edge", color=LOST)
    for limit in (measure.low, measure.high):
        if limit is not None and measure.edges[0] <= limit <= measure.edges[-1]:
            axes.axvline(limit, color=INK, linestyle="--", linewidth=1.4)
    axes.set_xlim(measure.edges[0], measure.edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_title(words(measure.name), loc="left", fontsize=10)
    axes.set_title(limits_of(measure), loc="right", fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.spines[["top", "right"]].set_visible(False)


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _short(text: str) -> str:
    """A label that leaves room for the bars; dollar signs would be read as mathematics."""
    return (text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}\u2026").replace("$", r"\$")


def _plain() -> AbstractContextManager[None]:
    """Matplotlib as it is shipped, whatever the person's own settings are: equal facts give equal bytes."""
    plain: AbstractContextManager[None] = matplotlib.rc_context(matplotlib.rcParamsDefault)
    return plain
