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
    max_aspect: float = param(3.0, ge=1, help="Clips whose longer side is more times the shorter are too_narrow.")
    min_fps: float = param(6.0, ge=0, help="Clips of fewer frames per second are too_jerky.")
    min_bits_per_pixel: float = param(0.002, ge=0, help="Clips coded with fewer bits per pixel are too_compressed.")
    max_cut_doubt: float = param(
        -2.0, help="Clips with higher log odds of a transition inside that was not found (-4 none) are maybe_cut."
    )
    max_black_bars: float = param(0.3, ge=0, le=1, help="Clips with more of the picture in black bars have black_bars.")
    min_exposure: float = param(0.12, ge=0, le=1, help="Clips of a lower exposure (0 black, 1 white) are too_dark.")
    max_exposure: float = param(0.75, ge=0, le=1, help="Clips of a higher exposure are too_bright.")
    max_clipping: float = param(0.5, ge=0, le=1, help="Clips with more of the picture pure black or white are clipped.")
    max_blur: float = param(0.55, ge=0, le=1, help="Clips of a higher blur (0 sharp, 1 flat) are too_blurry.")
    max_noise: float = param(0.06, ge=0, le=1, help="Clips of stronger grain (a share of white) are too_noisy.")
    max_overlay_text: float = param(0.05, ge=0, le=1, help="Clips with more of the picture under text are overlaid.")
    max_logo: float = param(0.9, ge=0, le=1, help="Clips with more evidence of a mark in a corner have a logo.")
    max_blockiness: float = param(0.3, ge=0, le=1, help="Clips that lost more detail to blocks are too_blocky.")
    max_freeze: float = param(0.5, ge=0, le=1, help="Clips that stand still for more of their time are frozen.")
    min_motion: float = param(0.001, ge=0, help="Clips that move by fewer frame sizes per second are too_static.")
    max_motion: float = param(1.0, gt=0, help="Clips that move by more frame sizes per second are too_fast.")
    min_stability: float = param(0.1, ge=0, le=1, help="Clips of a less steady camera (1 steady, 0 shaken) are shaky.")
    max_flicker: float = param(0.3, ge=0, le=1, help="Clips whose brightness jumps by more are flickering.")
    min_suitability: float = param(
        2.0, ge=1, le=5, help="Clips of a lower suitability, 1 bad to 5 good, are unsuitable."
    )
    suitability_uri: Artifact = param("", help="Model that curate.learn wrote; empty takes the built-in one.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(
        help="The same manifest with suitability, and a reason for each rejected clip (parquet)."
    )
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
