"""Which frames of a clip make a sample."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

from telecine_components.curate.encode.spec import Inputs

_TOLERANCE_S = 1e-6


@dataclasses.dataclass(frozen=True)
class Window:
    """One sample to be: the seconds at which its frames are taken, their size, and the frames it may not leave."""

    sample_id: str
    clip: Mapping[str, Any]
    times_s: tuple[float, ...]
    width_px: int
    height_px: int
    start_frame: int
    end_frame: int


def windows_of(clip: Mapping[str, Any], inputs: Inputs) -> list[Window]:
    """Windows of a clip: as many as fit without overlap, up to the limit, spread evenly; none if it is too short."""
    length_s = inputs.num_frames / inputs.sample_fps
    duration_s = clip["end_s"] - clip["start_s"]
    num_windows = min(inputs.max_samples_per_clip, int((duration_s + _TOLERANCE_S) / length_s))
    if not num_windows:
        return []
    gap_s = (duration_s - num_windows * length_s) / num_windows
    starts = [clip["start_s"] + gap_s / 2 + (length_s + gap_s) * place for place in range(num_windows)]
    return [_window(clip, start_s, inputs) for start_s in starts]


def size_of(clip: Mapping[str, Any], inputs: Inputs) -> tuple[int, int]:
    """Width and height of a clip's samples.

    Where the aspect is kept, the sides that have the area asked for, each rounded to a multiple; all clips of about one
    aspect have one size, so sizes are few.
    """
    if not inputs.keep_aspect:
        return inputs.width_px, inputs.height_px
    area, aspect = inputs.width_px * inputs.height_px, clip["width_px"] / clip["height_px"]
    sides = math.sqrt(area * aspect), math.sqrt(area / aspect)
    width, height = (max(1, round(side / inputs.side_multiple_px)) * inputs.side_multiple_px for side in sides)
    return width, height


def _window(clip: Mapping[str, Any], start_s: float, inputs: Inputs) -> Window:
    times_s = tuple(start_s + frame / inputs.sample_fps for frame in range(inputs.num_frames))
    width, height = size_of(clip, inputs)
    shape = (inputs.num_frames, height, width, inputs.sample_fps)
    sample_id = hashlib.sha256(f"{clip['clip_id']}:{start_s:.6f}:{shape}".encode()).hexdigest()[:16]
    return Window(sample_id, clip, times_s, width, height, clip["start_frame"], clip["end_frame"])
