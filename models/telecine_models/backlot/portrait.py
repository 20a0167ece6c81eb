"""Reference images: a thing's own look, alone on a plain background."""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import lit, signed_distance
from telecine_models.backlot.lens import pattern_tone
from telecine_models.backlot.scene import COLOURS
from telecine_models.backlot.world import Look

_PAPER_LEVEL = 200.0
_RADIUS_RATIO = 0.42


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """``rgb`` uint8 [side, side, 3], and ``mask`` bool [side, side] of the pixels whose centre is within the thing."""

    rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def portrait(look: Look, side_px: int = 64) -> Reference:
    """Draw a look in the middle of a light grey square.

    Raises:
        ValueError: a side shorter than 8 pixels.
    """
    if side_px < 8:
        raise ValueError(f"portrait: side_px must be at least 8, got {side_px}")
    radius = _RADIUS_RATIO * side_px
    place = np.arange(side_px, dtype=np.float32) + np.float32(0.5 - side_px / 2)
    v, u = (each.copy() for each in np.broadcast_arrays(place[:, None], place[None, :]))
    distance = signed_distance(look.shape, u, v, radius)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    shade = lit(distance, u, v, radius) * pattern_tone(look.pattern, u, v, radius)
    colour = shade[..., None] * np.array(COLOURS[look.colour], np.float32)
    levels = _PAPER_LEVEL + cover * (colour - _PAPER_LEVEL)
    return Reference(np.clip(levels, 0, 255).astype(np.uint8), distance < 0)
