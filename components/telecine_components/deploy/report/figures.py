"""Small inline pictures as HTML and SVG text: they scale, follow the page's colours and need no other file."""

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 680, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34


def bars(rows: Sequence[tuple[str, int, str]], total: int) -> str:
    """Horizontal bars (label, count, CSS class) as a share of ``total``."""
    lines = []
    for label, count, kind in rows:
        share = 100 * count / max(total, 1)
        lines.append(
            f'<tr><th scope="row">{escape(label)}</th><td class="number">{count}</td>'
            f'<td class="bar"><span class="{kind}" style="width:{share:.1f}%"></span></td></tr>'
        )
    return f'<table class="bars">{"".join(lines)}</table>'


def line_chart(series: Mapping[str, Points], levels: Mapping[str, float], *, x_label: str, y_label: str) -> str:
    """Lines over a shared axis from zero, with dashed horizontal ``levels``; at most four of both together."""
    x_max = max((x for points in series.values() for x, _ in points), default=1.0)
    y_max = 1.05 * max([y for points in series.values() for _, y in points] + list(levels.values()), default=1.0)
    parts = [_axes(x_max, y_max, x_label, y_label)]
    for index, (name, points) in enumerate(series.items()):
        path = " ".join(f"{_x(x, x_max):.1f},{_y(y, y_max):.1f}" for x, y in points)
        parts.append(f'<polyline class="line line-{index}" points="{path}"><title>{escape(name)}</title></polyline>')
    for offset, (name, level) in enumerate(levels.items()):
        index = len(series) + offset
        height = f"{_y(level, y_max):.1f}"
        parts.append(
            f'<line class="level line-{index}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height}" y2="{height}">'
            f"<title>{escape(name)}</title></line>"
        )
    label = escape(f"{y_label} over {x_label}")
    picture = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return picture + _legend([*series, *levels])


def _axes(x_max: float, y_max: float, x_label: str, y_label: str) -> str:
    parts = []
    for tick in range(5):
        y = y_max * tick / 4
        at = _y(y, y_max)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        x = x_max * tick / 4
        parts.append(f'<text x="{_x(x, x_max):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{x:.0f}</text>')
    middle = (_LEFT + _WIDTH) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{_LEFT + 4}" y="{_TOP + 10}">{escape(y_label)}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    keys = "".join(f'<li class="key-{index}">{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{keys}</ul>'


def _x(value: float, maximum: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / maximum


def _y(value: float, maximum: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / maximum
