"""The page as text: facts in, one HTML document out. It names no other file; its policy lets no other script run."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from telecine_components.curate.report.facts import Funnel, Measure, kinds, stages, value_of
from telecine_components.curate.report.figures import funnel_table, histograms, hours, words
from telecine_components.curate.report.script import SCRIPT
from telecine_components.curate.report.style import CSS

Row = Mapping[str, Any]

COLUMNS = (
    "clip_id",
    "source",
    "source_digest",
    "start_s",
    "end_s",
    "start_frame",
    "end_frame",
    "fps",
    "width_px",
    "height_px",
    "codec",
    "begins_with",
    "ends_with",
    "shot_id",
    "reason",
    "duplicate_of",
    "cluster",
    "caption",
    "captions",
    "captioner",
    "licence",
    "consent",
)
"""What the page tells of a clip beside its measures, its poster and its stages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the page tells.

    Attributes:
        rows: of the manifest, in its order.
        posters: data URI of each row's poster, or None.
        num_posters_left_out: clips whose poster the page has no room for.
    """

    rows: Sequence[Row]
    funnel: Funnel
    measures: Sequence[Measure]
    posters: Sequence[str | None]
    num_posters_left_out: int = 0


def render(facts: Facts) -> str:
    """The whole page."""
    names = _groups(facts)
    groups = {name: place for place, name in enumerate(names)}
    body = "\n".join((_header(facts), _funnel(facts, groups), _measures(facts), _clips(facts, names)))
    policy = f"default-src 'none'; img-src data:; script-src {_source(SCRIPT)}; style-src {_source(CSS)}; "
    policy += "base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Telecine: curated clips</title><link rel="icon" href="data:,"><style>{CSS}</style></head>\n'
        f'<body>\n{body}\n<script type="application/json" id="data">{_data(facts, groups)}</script>\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _source(text: str) -> str:
    """The one inline script or style as a source that a Content-Security-Policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _groups(facts: Facts) -> list[str]:
    """Every kind of row but the kept ones, in the order of the funnel; that of a bad file begins with ``bad:``."""
    return [f"bad:{kind.name}" for kind in facts.funnel.bad] + [kind.name for kind in facts.funnel.rejected]


def _header(facts: Facts) -> str:
    funnel = facts.funnel
    tiles = (
        ("files", f"{funnel.num_files:,}"),
        ("files without a clip", f"{funnel.num_bad:,}"),
        ("clips found", f"{funnel.num_clips:,}"),
        ("clips kept", f"{funnel.kept.count:,} ({funnel.kept_ratio:.1%})"),
        ("kept footage", f"{hours(funnel.kept.seconds)} of {hours(funnel.seconds)}"),
    )
    boxes = "".join(
        f'<div class="tile"><span class="quiet">{label}</span><b>{value}</b></div>' for label, value in tiles
    )
    return f'<header><h1>Curated clips</h1><div class="tiles">{boxes}</div></header>'


def _funnel(facts: Facts, groups: dict[str, int]) -> str:
    return (
        "<h2>Funnel</h2><p class=quiet>Every file and every clip is counted once; a rejected clip under the first "
        f"reason that held. Choose a step to see its clips.</p>{funnel_table(facts.funnel, groups)}"
    )


def _measures(facts: Facts) -> str:
    if not facts.measures:
        return ""
    return (
        "<h2>Measures</h2><ul class=legend><li class=key-left>kept</li><li class=key-lost>rejected, for whatever "
        "reason</li><li class=key-limit>threshold</li></ul><p class=quiet>The outermost bars also hold what lies "
        f"beyond them.</p>{histograms(facts.measures)}"
    )


def _clips(facts: Facts, names: Sequence[str]) -> str:
    sorts = "".join(f'<option value="{m.name}">{escape(words(m.name))}</option>' for m in facts.measures)
    note = ""
    if facts.num_posters_left_out:
        note = f"<p class=quiet>{facts.num_posters_left_out:,} clips stand without their poster: the page is full.</p>"
    return f"""<h2 id="clips">Clips</h2>{note}
<form id="tools" class="tools" role="search">
<label>Show <select id="show">{_choices(facts, names)}</select></label>
<label>Search <input id="search" type="search" placeholder="file, caption, licence, clip" autocomplete="off"></label>
<label>Sort by <select id="sort"><option value="">file and time</option>{sorts}</select></label>
<button id="turn" type="button" class="plain" aria-pressed="false">first to last</button>
<span class="pager"><button id="before" type="button" aria-label="page before">&larr;</button>
<span id="place" role="status" aria-live="polite"></span>
<button id="after" type="button" aria-label="next page">&rarr;</button></span>
</form>
<ol id="list" class="cards"></ol>
<p id="none" class="quiet" hidden>No clip is like that.</p>
<p class="quiet keys"><kbd>/</kbd> search <kbd>&larr;</kbd> <kbd>&rarr;</kbd> pages <kbd>j</kbd> <kbd>k</kbd> next and
previous clip <kbd>Enter</kbd> its details</p>"""


def _choices(facts: Facts, names: Sequence[str]) -> str:
    funnel = facts.funnel
    counts = [kind.count for kind in (*funnel.bad, *funnel.rejected)]
    choices = [("all", "everything", len(facts.rows)), ("kept", "kept clips", funnel.kept.count)]
    choices += [("rejected", "rejected clips", funnel.num_clips - funnel.kept.count)]
    choices += [("bad", "files without a clip", funnel.num_bad)]
    for place, (name, count) in enumerate(zip(names, counts, strict=True)):
        choices.append((f"g{place}", words(name.replace("bad:", "file: ", 1)), count))
    return "".join(f'<option value="{value}">{escape(label)} ({count:,})</option>' for value, label, count in choices)


def _data(facts: Facts, groups: dict[str, int]) -> str:
    """What the script shows, as JSON in which nothing can end the element that holds it."""
    made_by = stages(facts.rows)
    places = {stage: place for place, stage in enumerate(made_by)}
    document = {
        "columns": [*COLUMNS, "group", "stages", "values"],
        "rows": [
            _cells(row, kind, facts, groups, places) for row, kind in zip(facts.rows, kinds(facts.rows), strict=True)
        ],
        "posters": facts.posters,
        "stages": [{"name": n, "version": v, "settings": s} for n, v, s in made_by],
        "measures": [_scale(measure) for measure in facts.measures],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _cells(
    row: Row, kind: str | None, facts: Facts, groups: dict[str, int], places: dict[tuple[str, str, str], int]
) -> list[Any]:
    is_bad = row["clip_id"] is None
    made_by = [places[s["name"] or "", s["version"] or "", s["settings"] or ""] for s in row["stages"] or ()]
    values = [] if is_bad else [_short(value_of(row, measure.name)) for measure in facts.measures]
    group = None if kind is None else groups[f"bad:{kind}" if is_bad else kind]
    return [*(row[name] for name in COLUMNS), group, made_by, values]


def _scale(measure: Measure) -> dict[str, Any]:
    """From where to where a clip's bar may reach; it begins at 0 wherever it can."""
    bottom, top = min(measure.bottom, 0.0), float(measure.edges[-1])
    return {"name": measure.name, "low": measure.low, "high": measure.high, "bottom": bottom, "top": top}


def _short(value: float | None) -> float | None:
    """Six digits tell all that a person sees."""
    return None if value is None else float(f"{value:.6g}")
