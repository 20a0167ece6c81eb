"""Read the manifest and its posters, write the page and the pictures, log them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.curate.report.facts import Funnel, Measure, funnel, measures, thresholds
from telecine_components.curate.report.page import Facts, render
from telecine_components.curate.report.pictures import write_funnel, write_histograms
from telecine_components.curate.report.posters import data_uris
from telecine_components.curate.report.sheets import plain, sheets, spread, write_sheet
from telecine_components.curate.report.spec import Inputs, Outputs
from telecine_components.media import clips

log = logging.getLogger(__name__)

UNSEEN = ["fingerprint", "descriptor"]
"""What no person reads, and most of what a manifest holds."""


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``report.html`` and the folder ``pictures``; see :class:`Inputs`.

    Raises:
        InputError: no manifest, or one that names a poster which is gone or no picture.
    """
    table = clips.read_table(ctx.fetch(inputs.clips_uri), owner="curate.report").drop_columns(UNSEEN)
    rows = table.to_pylist()
    counts, measured = funnel(rows), measures(rows, thresholds(rows, _metadata(table)))
    paths = [_poster(row["poster"], ctx) if row["poster"] else None for row in rows]
    posters = data_uris(paths, budget_bytes=int(inputs.posters_mib * 2**20))
    num_left_out = sum(path is not None for path in paths) - sum(uri is not None for uri in posters)
    page = ctx.dir / "report.html"
    facts = Facts(rows=rows, funnel=counts, measures=measured, posters=posters, num_posters_left_out=num_left_out)
    page.write_text(render(facts), encoding="utf-8")
    pictures = _pictures(ctx.dir / "pictures", facts, paths, inputs.sheet_clips)
    _track(ctx, inputs, facts, [page, *pictures])
    log.info("event=report_done bytes=%d pictures=%d clips=%d", page.stat().st_size, len(pictures), counts.num_clips)
    return Outputs(
        report_uri=Artifact("report.html"),
        pictures_uri=Artifact("pictures"),
        num_files=counts.num_files,
        num_bad_files=counts.num_bad,
        num_clips=counts.num_clips,
        num_kept=counts.kept.count,
        kept_ratio=counts.kept_ratio,
        kept_hours=counts.kept.seconds / 3600,
    )


def _poster(store_path: str, ctx: Context) -> Path:
    try:
        path = ctx.path(store_path)
        path.stat()
    except FileNotFoundError:
        raise InputError(
            f"curate.report: clips_uri names {store_path}, which {ctx.store.uri} does not have; report where the "
            "manifest was made, or run curate.split again"
        ) from None
    return path


def _metadata(table: pa.Table) -> dict[str, str]:
    """What the file says of itself beside its rows."""
    found = table.schema.metadata or {}
    return {name.decode(): value.decode() for name, value in found.items()}


def _pictures(folder: Path, facts: Facts, posters: Sequence[Path | None], most: int) -> list[Path]:
    folder.mkdir()
    write_funnel(folder / "funnel.png", facts.funnel)
    if facts.measures:
        write_histograms(folder / "histograms.png", facts.measures)
    poster_of = {id(row): poster for row, poster in zip(facts.rows, posters, strict=True) if poster is not None}
    originals = {row["clip_id"]: row for row in facts.rows if row["clip_id"] is not None}
    for name, found in sheets(row for row in facts.rows if id(row) in poster_of).items():
        shown = [(row, poster_of[id(row)]) for row in spread(found, most)]
        write_sheet(folder / f"{name}.png", shown, facts.measures, originals)
    return sorted(folder.iterdir())


def _track(ctx: Context, inputs: Inputs, facts: Facts, files: Sequence[Path]) -> None:
    for file in files:
        ctx.tracker.artifact(file, "" if file.parent == ctx.dir else file.parent.name)
    ctx.tracker.metrics(_metrics(facts.funnel, facts.measures), step=0)
    ctx.tracker.dataset(
        name="clips",
        digest=ctx.digest(ctx.fetch(inputs.clips_uri)),
        source_uri=inputs.clips_uri,
        context="curation",
        profile={"num_clips": facts.funnel.num_clips, "num_kept": facts.funnel.kept.count},
    )


def _metrics(counts: Funnel, measured: Sequence[Measure]) -> dict[str, float]:
    found = {
        "funnel/files": counts.num_files,
        "funnel/bad_files": counts.num_bad,
        "funnel/clips": counts.num_clips,
        "funnel/kept": counts.kept.count,
        "funnel/kept_ratio": counts.kept_ratio,
        "funnel/hours": counts.seconds / 3600,
        "funnel/kept_hours": counts.kept.seconds / 3600,
    }
    found |= {f"funnel/rejected_{plain(kind.name)}": kind.count for kind in counts.rejected}
    found |= {f"median/{measure.name}": measure.median for measure in measured}
    found |= {f"median_kept/{m.name}": m.median_kept for m in measured if m.median_kept is not None}
    return {name: float(value) for name, value in found.items()}
