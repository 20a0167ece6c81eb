"""The funnel and the histograms as HTML and SVG text. No style attributes: the page's policy forbids them."""

from collections.abc import Sequence
from html import escape

from telecine_components.curate.report.facts import Funnel, Kind, Measure

_WIDTH, _HEIGHT, _BASE = 200, 64, 60


def words(name: str) -> str:
    """A column's or reason's name as a person reads it."""
    return name.replace("_", " ")


def hours(seconds: float) -> str:
    """A duration in the unit in which it can be imagined."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def funnel_table(funnel: Funnel, groups: dict[str, int]) -> str:
    """From files to kept clips, a row a step. Each bar is what was left, and what this step took off it.

    Args:
        groups: number of each kind of row; a button of its row shows those clips.
    """
    lines = [_line("files", funnel.num_files, funnel.num_files, 0, funnel.num_files, "", "all")]
    lines += _losses(funnel.bad, funnel.num_files, funnel.num_files, groups, prefix="bad:")
    lines.append(_line("clips found", funnel.num_clips, funnel.num_clips, 0, funnel.num_clips, hours(funnel.seconds)))
    lines += _losses(funnel.rejected, funnel.num_clips, funnel.num_clips, groups, prefix="")
    kept = funnel.kept
    lines.append(_line("clips kept", kept.count, kept.count, 0, funnel.num_clips, hours(kept.seconds), "kept"))
    head = "<tr><th>step</th><th class=number>count</th><th class=number>share</th><th></th><th>lasting</th></tr>"
    return (
        f'<div class="scroll"><table class="funnel"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _losses(lost: Sequence[Kind], left: int, total: int, groups: dict[str, int], *, prefix: str) -> list[str]:
    lines = []
    for kind in lost:
        left -= kind.count
        lasting = hours(kind.seconds) if kind.seconds else ""
        group = f"g{groups[prefix + kind.name]}"
        lines.append(_line(words(kind.name), -kind.count, left, kind.count, total, lasting, group))
    return lines


def _line(label: str, count: int, left: int, lost: int, total: int, lasting: str, show: str = "") -> str:
    scale = 1000 / max(total, 1)
    bar = f'<rect class="left" width="{left * scale:.1f}" height="10"/>'
    bar += f'<rect class="lost" x="{left * scale:.1f}" width="{lost * scale:.1f}" height="10"/>'
    name = f'<button type="button" class="plain" data-show="{show}">{escape(label)}</button>' if show else escape(label)
    number = f"{count:,}".replace("-", "\u2212")
    return (
        f'<tr{" class=loss" if lost else ""}><th scope="row">{name}</th><td class="number">{number}</td>'
        f'<td class="number quiet">{abs(count) / max(total, 1):.1%}</td><td class="bar"><svg viewBox="0 0 1000 10" '
        f'preserveAspectRatio="none" aria-hidden="true">{bar}</svg></td><td class="quiet">{lasting}</td></tr>'
    )


def histograms(measures: Sequence[Measure]) -> str:
    """One small picture a measure: kept clips below, rejected ones on top of them, thresholds as dashed lines."""
    return f'<div class="panels">{"".join(_panel(measure) for measure in measures)}</div>'


def _panel(measure: Measure) -> str:
    most = max(int((measure.kept + measure.rejected).max()), 1)
    kept = [_BASE * count / most for count in measure.kept.tolist()]
    both = [_BASE * count / most for count in (measure.kept + measure.rejected).tolist()]
    marks = "".join(_mark(measure, limit) for limit in (measure.low, measure.high) if limit is not None)
    ends = (_short(measure.bottom), f"median {_short(measure.median)}", _short(measure.edges[-1]))
    axis = "".join(f"<span>{text}</span>" for text in ends)
    return (
        f'<figure><figcaption><b>{escape(words(measure.name))}</b> <span class="quiet">{limits_of(measure)}</span>'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Histogram of {escape(words(measure.name))}"><path class="lost" d="{_steps(both)}"/>'
        f'<path class="left" d="{_steps(kept)}"/>{marks}</svg>'
        f'<div class="axis quiet">{axis}</div></figure>'
    )


def _short(value: float) -> str:
    """A number in at most six characters, which is what the narrow axis has room for."""
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.4f}".rstrip("0").rstrip(".")


def limits_of(measure: Measure) -> str:
    """The thresholds in words; one that the picture's axis does not reach is said to lie beyond it."""
    told = []
    for side, limit in (("min", measure.low), ("max", measure.high)):
        if limit is not None:
            inside = measure.edges[0] <= limit <= measure.edges[-1]
            told.append(f"{side} {limit:g}{'' if inside else ' (beyond)'}")
    return ", ".join(told)


def _mark(measure: Measure, limit: float) -> str:
    first, last = measure.edges[0], measure.edges[-1]
    if not first <= limit <= last:
        return ""
    at = f"{_WIDTH * (limit - first) / (last - first):.1f}"
    return f'<line class="limit" x1="{at}" x2="{at}" y1="0" y2="{_HEIGHT}" vector-effect="non-scaling-stroke"/>'


def _steps(heights: Sequence[float]) -> str:
    """Bars beside each other as one closed path over the ground line."""
    step = _WIDTH / len(heights)
    bars = "".join(f"V{_HEIGHT - height:.1f}H{step * (place + 1):.1f}" for place, height in enumerate(heights))
    return f"M0 {_HEIGHT}{bars}V{_HEIGHT}Z"
