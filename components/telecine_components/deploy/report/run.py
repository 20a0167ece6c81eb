"""deploy.report: gather what the other components wrote, render the page, log it."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context
from telecine_components.deploy.report.page import Facts, render, verdict
from telecine_components.deploy.report.spec import Inputs, Outputs

log = logging.getLogger(__name__)


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Report; see :class:`Inputs`."""
    samples = ctx.fetch(inputs.samples_uri)
    facts = Facts(
        run=ctx.run,
        parent_run_id=ctx.tracker.parent_run_id,
        funnel=_json(ctx.fetch(inputs.funnel_uri)),
        bad_files=bad_files(ctx.fetch(inputs.clips_uri)),
        sources=sources(ctx.fetch(inputs.dataset_uri) / "index.parquet"),
        training=_json(ctx.fetch(inputs.training_uri)),
        registration=_json(ctx.fetch(inputs.registration_uri)),
        samples=_json(samples / "samples.json"),
        media={path.name: path.read_bytes() for path in samples.iterdir() if path.suffix in (".mp4", ".png")},
        tasks=[task for task in ctx.run_report() if task["component"] != ctx.component],
    )
    page = ctx.dir / "report.html"
    page.write_text(render(facts))
    (ctx.dir / "summary.json").write_text(json.dumps(summary(facts), indent=1, sort_keys=True))
    ctx.tracker.artifact(page)
    log.info("event=report bytes=%d tasks=%d", page.stat().st_size, len(facts.tasks))
    return Outputs(report_uri=Artifact("report.html"), summary_uri=Artifact("summary.json"))


def bad_files(manifest: Path) -> list[tuple[str, str]]:
    """(file, reason) of every file that gave no clip, by name."""
    rows = pq.read_table(manifest, columns=["clip_id", "source", "reason"]).to_pylist()
    return sorted((row["source"], row["reason"] or "unknown") for row in rows if row["clip_id"] is None)


def sources(index: Path) -> list[dict[str, Any]]:
    """One row per source file of the dataset: licence, consent, digest, samples on each side; by name."""
    found: dict[str, dict[str, Any]] = {}
    columns = ["source", "source_digest", "licence", "consent", "split"]
    for row in pq.read_table(index, columns=columns).to_pylist():
        entry = found.setdefault(
            row["source"],
            {
                "source": row["source"],
                "digest": row["source_digest"],
                "licence": row["licence"] or "unknown",
                "consent": row["consent"] or "unknown",
                "num_train": 0,
                "num_val": 0,
            },
        )
        entry[f"num_{row['split']}"] += 1
    return [found[name] for name in sorted(found)]


def summary(facts: Facts) -> dict[str, Any]:
    """The few figures that a terminal prints at the end of a run."""
    held_out = facts.training["held_out"]
    return {
        "run": facts.run,
        "parent_run_id": facts.parent_run_id,
        "funnel": facts.funnel,
        "bad_files": [{"file": name, "reason": reason} for name, reason in facts.bad_files],
        "num_steps": facts.training["num_steps"],
        "final_loss": facts.training["final_loss"],
        "held_out": {"loss": held_out["loss"], "gain_over": held_out["gain_over"], "num_clips": held_out["num_clips"]},
        "verdict": verdict(held_out),
        "num_films": len(facts.samples["films"]),
        "model_name": facts.registration["model_name"],
        "model_version": facts.registration["model_version"],
        "alias": facts.registration["alias"],
        "decisions": {task["task"]: task["decision"] for task in facts.tasks},
    }


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
