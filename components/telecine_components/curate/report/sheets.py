"""Contact sheets: what was kept, and what each reason rejected."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageFont

from telecine_components.curate.report.facts import Measure, value_of
from telecine_components.curate.report.figures import words
from telecine_components.curate.report.posters import read_poster
from telecine_components.media.sheet import PAPER, write_grid

Row = Mapping[str, Any]

STRIP_PX = (640, 120)
COLUMNS = 2
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
"""Pillow's own font knows no accents; this one lacks Chinese, Japanese and Korean."""
MAX_NAME = 60


def sheets(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Clips by the name of their sheet: ``kept``, or ``rejected_<reason>`` in letters that a file's name may have."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["clip_id"] is not None:
            name = "kept" if row["reason"] is None else f"rejected_{plain(row['reason'])}"
            found.setdefault(name, []).append(row)
    return found


def plain(reason: str) -> str:
    """A reason as a part of a file's or metric's name."""
    return re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_")[:MAX_NAME] or "unnamed"


def spread(clips: Sequence[Row], most: int) -> list[Row]:
    """At most so many clips, taken evenly."""
    return [clips[place * len(clips) // min(most, len(clips))] for place in range(min(most, len(clips)))]


def write_sheet(
    path: Path, clips: Sequence[tuple[Row, Path]], measures: Sequence[Measure], originals: Mapping[str, Row]
) -> None:
    """A strip a clip, and above it where it comes from, which thresholds it breaks, and which clip it copies."""
    cells = [(_label(row, measures, originals), _fitted(read_poster(poster))) for row, poster in clips]
    write_grid(path, cells, columns=min(COLUMNS, len(cells)), font=ImageFont.truetype(FONT, 11))


def _fitted(strip: Image.Image) -> Image.Image:
    """Left in a cell of full width, because the label above it may need more room than a strip of one frame."""
    scale = min(STRIP_PX[0] / strip.width, STRIP_PX[1] / strip.height)
    size = max(1, round(strip.width * scale)), max(1, round(strip.height * scale))
    cell = Image.new("RGB", (STRIP_PX[0], size[1]), PAPER)
    cell.paste(strip.resize(size, Image.Resampling.LANCZOS))
    return cell


def _label(row: Row, measures: Sequence[Measure], originals: Mapping[str, Row]) -> str:
    parts = [_place(row)]
    for measure in measures:
        value = value_of(row, measure.name)
        if value is not None and measure.breaks(value):
            side, limit = ("<", measure.low) if measure.low is not None and value < measure.low else (">", measure.high)
            parts.append(f"{words(measure.name)} {value:.3g} {side} {limit:g}")
    if row["duplicate_of"]:
        original = originals.get(row["duplicate_of"])
        parts.append(f"same as {_place(original) if original else row['duplicate_of']}")
    return "   ".join(parts)


def _place(row: Row) -> str:
    source = row["source"] if len(row["source"]) <= MAX_NAME else f"\u2026{row['source'][1 - MAX_NAME :]}"
    return f"{source} {row['start_s']:.2f}\u2013{row['end_s']:.2f} s"
