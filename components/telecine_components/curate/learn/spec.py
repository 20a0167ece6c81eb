"""curate.learn: fit the suitability score to clips that people rated, or that Backlot spoilt by known degrees."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest that curate.split wrote of the footage (parquet).")
    ratings_uri: Artifact = param(
        "",
        help="What people say (CSV): rating from 1 bad to 5 good, of a clip_id or of a source with start_s and end_s.",
    )
    truth_uri: Artifact = param(
        "", help="Folder that backlot.shoot wrote, whose .json files say by what and how much each film was spoilt."
    )
    sharing: float = param(
        0.1, gt=0, help="How much alike measures count; a high value helps with faults that no rated clip has."
    )
    num_folds: int = param(5, ge=2, help="The sources are held out in so many parts, one after the other.")
    seed: int = param(0, ge=0, help="Seed of which source is in which part.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    model_uri: Artifact = param(help="The model that curate.filter takes as suitability_uri (JSON).")
    calibration_uri: Artifact = param(
        help="For each half step of the score: how many held-out clips have it, and what they were rated (CSV)."
    )
    plot_uri: Artifact = param(help="Held-out scores against ratings (PNG).")
    num_clips: int = param(help="Clips it was fitted to.")
    num_sources: int = param(help="Files that these come from.")
    spearman: float = param(help="Rank correlation of score and rating on held-out sources.")
    error: float = param(help="Root of the mean squared difference of score and rating on held-out sources.")


COMPONENT = Component(
    name="curate.learn",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.learn.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
