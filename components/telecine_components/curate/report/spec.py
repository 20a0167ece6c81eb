"""curate.report: a page in which a person browses the clips of a manifest, and pictures of its funnel and measures."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest of any step of curation, best the last (parquet).")
    posters_mib: float = param(
        24.0, ge=0, help="Room for posters in the page; where they do not fit as they are, they are shrunk."
    )
    sheet_clips: int = param(24, ge=1, le=200, help="Clips on each contact sheet, taken evenly from all.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    report_uri: Artifact = param(help="The page: one HTML file that needs nothing else.")
    pictures_uri: Artifact = param(help="Folder of funnel.png, histograms.png, kept.png and rejected_<reason>.png.")
    num_files: int = param(help="Files that the manifest tells of.")
    num_bad_files: int = param(help="Files that gave no clip.")
    num_clips: int = param(help="Clips found in the others.")
    num_kept: int = param(help="Clips without a reason to reject them.")
    kept_ratio: float = param(help="Share of the clips that is kept.")
    kept_hours: float = param(help="How long the kept clips last.")


COMPONENT = Component(
    name="curate.report",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.report.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
