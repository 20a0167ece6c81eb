"""Join measures with ratings, judge the model on held-out sources, fit it to all."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.curate.learn import judging, plot
from telecine_components.curate.learn.planted import planted_qualities
from telecine_components.curate.learn.ratings import read_ratings
from telecine_components.curate.learn.spec import Inputs, Outputs
from telecine_components.curate.suitability.fit import DIRECTIONS, fit
from telecine_components.curate.suitability.model import Model
from telecine_components.media import clips

log = logging.getLogger(__name__)

MIN_CLIPS = 20

Rows = list[dict[str, Any]]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``model.json``, ``calibration.csv`` and ``calibration.png``.

    Raises:
        InputError: no truth is given, it does not fit the clips, or there are too few of them.
    """
    rows = [row for row in clips.read(ctx.fetch(inputs.clips_uri), owner="curate.learn") if row["clip_id"] is not None]
    quality_of, truth = _truth(inputs, ctx, rows)
    rated = [row for row in rows if row["clip_id"] in quality_of]
    _check(rated, inputs)
    quality = np.array([quality_of[row["clip_id"]] for row in rated])

    def fitted(some: Sequence[Any], their_quality: judging.Floats) -> Model:
        return fit(some, their_quality, truth=truth, sharing=inputs.sharing)

    scores = judging.held_out_scores(rated, quality, fitted, num_folds=inputs.num_folds, seed=inputs.seed)
    metrics = {
        "spearman": round(judging.spearman(scores, quality), 6),
        "error": round(judging.root_mean_square(scores - quality), 6),
        "num_clips": len(rated),
        "num_sources": len({row["source"] for row in rated}),
    }
    model = dataclasses.replace(fitted(rated, quality), metrics=metrics)
    bins = judging.calibration(scores, quality)
    (ctx.dir / "model.json").write_text(model.to_json())
    (ctx.dir / "calibration.csv").write_text(judging.as_csv(bins))
    plot.draw(ctx.dir / "calibration.png", scores, quality, bins)
    ctx.tracker.metrics({f"suitability/{name}": float(value) for name, value in metrics.items()}, step=0)
    ctx.tracker.artifact(ctx.dir / "calibration.png")
    log.info("event=learn_done %s", " ".join(f"{name}={value:g}" for name, value in metrics.items()))
    return Outputs(
        model_uri=Artifact("model.json"),
        calibration_uri=Artifact("calibration.csv"),
        plot_uri=Artifact("calibration.png"),
        num_clips=len(rated),
        num_sources=int(metrics["num_sources"]),
        spearman=metrics["spearman"],
        error=metrics["error"],
    )


def _truth(inputs: Inputs, ctx: Context, rows: Rows) -> tuple[dict[str, float], str]:
    """Quality by clip_id, and where it comes from; what people say of a clip counts more than what was planted."""
    if not inputs.ratings_uri and not inputs.truth_uri:
        raise InputError("curate.learn: needs ratings_uri or truth_uri to learn from, got neither")
    planted: dict[str, float] = {}
    if inputs.truth_uri:
        of_source = planted_qualities((row["source"] for row in rows), ctx.fetch(inputs.truth_uri))
        planted = {row["clip_id"]: of_source[row["source"]] for row in rows if row["source"] in of_source}
    rated = read_ratings(ctx.fetch(inputs.ratings_uri), rows) if inputs.ratings_uri else {}
    names = [name for name, found in (("planted", planted), ("ratings", rated)) if found]
    return planted | rated, " and ".join(names)


def _check(rated: Rows, inputs: Inputs) -> None:
    num_sources = len({row["source"] for row in rated})
    if len(rated) < MIN_CLIPS or num_sources < inputs.num_folds:
        raise InputError(
            f"curate.learn: needs at least {MIN_CLIPS} rated clips of at least {inputs.num_folds} sources (num_folds), "
            f"got {len(rated)} of {num_sources}; rate more clips"
        )
    measures = {each.measure for each in DIRECTIONS}
    for row in rated:
        if missing := sorted(name for name in measures if row[name] is None):
            raise InputError(
                f"curate.learn: clip {row['clip_id']} of {row['source']} has no {', '.join(missing)}; run curate.split "
                "of this version again"
            )
