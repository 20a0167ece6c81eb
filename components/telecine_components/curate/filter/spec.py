"""curate.filter: keep the clips that pass every threshold; each rejected clip gets one reason, the first that holds."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Thresholds in the order in which they are tried."""

    clips_uri: Artifact = param(help="Manifest that curate.split wrote (parquet).")
    min_duration_s: float = param(1.0, ge=0, help="Shorter clips are too_short.")
    max_duration_s: float = param(60.0, gt=0, help="Longer clips are too_long.")
    min_side_px: int = param(64, ge=1, help="Clips whose shorter side has fewer pixels are too_small.")
    min_exposure: float = param(0.12, ge=0, le=1, help="Clips of a lower exposure (0 black, 1 white) are too_dark.")
    max_exposure: float = param(0.75, ge=0, le=1, help="Clips of a higher exposure are too_bright.")
    max_blur: float = param(0.5, ge=0, le=1, help="Clips of a higher blur (0 sharp, 1 flat) are too_blurry.")
    min_motion: float = param(0.001, ge=0, help="Clips that move by fewer frame sizes per second are too_static.")
    max_motion: float = param(1.0, gt=0, help="Clips that move by more frame sizes per second are too_fast.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(help="The same manifest with a reason for each rejected clip (parquet).")
    funnel_uri: Artifact = param(help="How many clips came in, were kept, and were rejected for which reason (JSON).")
    num_clips: int = param(help="Clips kept.")
    num_rejected: int = param(help="Clips rejected.")


COMPONENT = Component(
    name="curate.filter",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.filter.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
