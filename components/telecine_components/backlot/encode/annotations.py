"""What is true of a clip as arrays that a model is conditioned on; `docs/training.md` has the table of them.

Axes: F frames, H, W pixels, E elements, h, w pixels of an element's picture, A actions, K keys.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_models.backlot import Clip
from telecine_models.video_dit.config import MAX_ELEMENTS

Arrays = dict[str, npt.NDArray[Any]]


def annotations(shot: Clip, other: Clip, element_px: int) -> Arrays:
    """Arrays by name; what a clip has no truth for is left out.

    ``depth`` uint8 [F, H, W], ``camera`` float32 [F, 3, 4], ``elements`` uint8 [E, h, w, 3], ``source`` uint8
    [F, H, W, 3] with ``source_mask`` bool [F, H, W], ``keys`` uint8 [A, K] with ``mouse`` float32 [A, 2].

    Args:
        other: a clip of the same size, which is seen in the source where something is to be generated.
    """
    found: Arrays = {"depth": nearness(shot.depth), "camera": shot.poses.astype(np.float32)}
    pictures = _elements(shot, element_px)
    if len(pictures):
        found["elements"] = pictures
    mask = _box(shot)
    if mask.any():
        found |= {"source": np.where(mask[..., None], other.frames, shot.frames), "source_mask": mask}
    if shot.actions is not None:
        found |= {"keys": shot.actions.keys, "mouse": shot.actions.mouse_deg.astype(np.float32)}
    return found


def nearness(depth_m: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Inverse depth of a clip [F, H, W] as levels: 255 where it is nearest, towards 0 far away.

    Relative to the clip, as estimators of depth from one camera have it.
    """
    levels: npt.NDArray[np.uint8] = np.rint(255 * (depth_m.min() / depth_m)).astype(np.uint8)
    return levels


def _elements(shot: Clip, side_px: int) -> npt.NDArray[np.uint8]:
    """Pictures of the parts that are seen [E, h, w, 3], the first few."""
    seen = {int(label) - 1 for label in np.unique(shot.instances) if label}
    pictures = shot.references(side_px)
    shown = [picture.rgb for part, picture in zip(shot.parts, pictures, strict=True) if seen.intersection(part.members)]
    return np.array(shown[:MAX_ELEMENTS], dtype=np.uint8)


def _box(shot: Clip) -> npt.NDArray[np.bool_]:
    """Where the object that is seen most lies [F, H, W]: a box in each frame, which does not tell its outline."""
    sizes = np.bincount(shot.instances.ravel(), minlength=2)
    shown = shot.instances == 1 + sizes[1:].argmax()
    if not sizes[1:].any():
        return np.zeros_like(shown)
    rows, columns = (_between(shown.any(axis=axis)) for axis in (2, 1))
    box: npt.NDArray[np.bool_] = rows[:, :, None] & columns[:, None, :]
    return box


def _between(hit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """From the first to the last that is hit, along the last axis."""
    begun = np.logical_or.accumulate(hit, axis=1)
    ended = np.logical_or.accumulate(hit[:, ::-1], axis=1)[:, ::-1]
    between: npt.NDArray[np.bool_] = begun & ended
    return between
