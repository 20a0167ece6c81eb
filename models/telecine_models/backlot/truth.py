"""The truth about the objects of a clip, as plain JSON values."""

from typing import Any

import numpy as np

from telecine_models.backlot.camera import Views, project
from telecine_models.backlot.lens import Picture
from telecine_models.backlot.scene import COLOURS
from telecine_models.backlot.world import Part, Thing, World


def part_truth(part: Part) -> dict[str, Any]:
    """What a part shows and does."""
    return {
        "shape": part.look.shape,
        "colour": part.look.colour,
        "rgb": list(COLOURS[part.look.colour]),
        "pattern": part.look.pattern,
        "size": part.size,
        "count": part.count,
        "members": list(part.members),
        "deed": part.deed,
    }


def object_truths(world: World, views: Views, picture: Picture) -> list[dict[str, Any]]:
    """Where each object is in the world and in every frame, and how much of it is seen."""
    if not world.things:
        return []
    pixels, depths = project(np.stack([each.centers_m for each in world.things]), views)
    ratios = picture.pixels / np.maximum(picture.pixels_alone, 1)
    part_of = {member: index for index, part in enumerate(world.parts) for member in part.members}
    columns = zip(
        np.round(pixels, 3).tolist(),
        np.round(depths, 4).tolist(),
        picture.boxes.tolist(),
        picture.pixels.tolist(),
        np.round(ratios, 4).tolist(),
        strict=True,
    )
    return [
        _look_truth(each, part_of[index])
        | {
            "centers_m": np.round(each.centers_m, 4).tolist(),
            "centers_px": centres,
            "depths_m": depth,
            "boxes_px": [box if count else None for box, count in zip(boxes, counts, strict=True)],
            "pixels": counts,
            "visible_ratio": ratio,
        }
        for index, (each, (centres, depth, boxes, counts, ratio)) in enumerate(zip(world.things, columns, strict=True))
    ]


def _look_truth(each: Thing, part: int) -> dict[str, Any]:
    return {
        "part": part,
        "shape": each.look.shape,
        "colour": each.look.colour,
        "colours": list(each.colours),
        "pattern": each.look.pattern,
        "radius_m": round(each.radius_m, 4),
        "facing_deg": round(each.facing_deg, 3),
        "exists": each.shown.tolist(),
    }
