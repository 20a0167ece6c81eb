"""Shots of Backlot's stage in which a caption, a camera, a depth video and an image each tell a part of what is seen.

One thing stands before a wall while the camera trucks to the left or right. The caption says how bright the wall is;
the camera's poses how the wall and, nearer and so faster, the thing pass by; the depth video where the thing is; and
the image of the element its colour. They overlap as real conditions do: depth shows how the camera moves, by what it
sees of the thing, and an element its outline.

Axes: N shots, F frames, H, W pixels, h, w pixels of an element's image.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from telecine_models.backlot.camera import Views, intrinsics, poses
from telecine_models.backlot.lens import Picture, shoot
from telecine_models.backlot.portrait import portrait
from telecine_models.backlot.scene import COLOURS, SHAPES, Stage
from telecine_models.backlot.world import Look, Room, Surface, World, thing
from telecine_models.camera import flatten_poses, relative_poses
from telecine_models.pixels import to_model_range
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.conditions import Conditions

KINDS = ("camera", "depth", "elements")
LOOKS = ("red", "yellow", "green", "blue")
WALL_M, THING_M = 4.0, 2.8
"""How far ahead of the camera the wall is, and the thing."""
TRUCK_M = 0.8
"""The camera goes as far as this, to either side, from the first frame to the last."""
_WALLS = {"dark": (84.0, 84.0, 92.0), "grey": (118.0, 118.0, 124.0), "pale": (152.0, 152.0, 158.0)}
# High enough that no ground is seen, and away from x = 0, where the texture of the wall is its own mirror image.
_EYE_M, _START_M = 4.0, 1.0
_RADII_M = (0.6, 0.9)
_ASIDE_RATIO = 0.25
_CONTRAST = 2.0
# Translations of a camera's tokens are in this unit, which makes them numbers around one.
_POSE_UNIT_M = 0.5
_ELEMENT_PX = 8
_STREAM = 51


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shots:
    """Shots in model range, their captions as tokens of which some are real, their conditions, and what is true.

    Attributes:
        truck_m: how far the camera goes to the right from the first frame to the last.
        shown: where the thing is.
        colour: its place in :data:`LOOKS`.
    """

    x0: Float[Tensor, "N 3 F H W"]
    text: Float[Tensor, "N L D"]
    real: Bool[Tensor, "N L"]
    camera: Float[Tensor, "N F 12"]
    depth: Float[Tensor, "N 3 F H W"]
    elements: Float[Tensor, "N 1 3 h w"]
    truck_m: Float[Tensor, " N"]
    shown: Bool[Tensor, "N F H W"]
    colour: Int64[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.x0)

    def at(self, index: Int64[Tensor, " n"]) -> "Shots":
        """Some of them."""
        return Shots(**{name: value[index] for name, value in vars(self).items()})

    def to(self, device: str) -> "Shots":
        """The same on a device."""
        return Shots(**{name: value.to(device) for name, value in vars(self).items()})

    def conditions(self, kinds: Sequence[str]) -> Conditions | None:
        """What a model is told beside the captions; None if nothing."""
        return Conditions(**{kind: getattr(self, kind) for kind in kinds}) if kinds else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shot:
    picture: Picture
    poses: Tensor
    element: Tensor
    caption: str
    truck_m: float
    colour: int


def draw_shots(key: tuple[int, ...], num_shots: int, num_frames: int, side_px: int) -> Shots:
    """Shots number 0, 1, … of the stream named by non-negative integers."""
    drawn = [_shot(np.random.default_rng((*key, _STREAM, index)), num_frames, side_px) for index in range(num_shots)]
    canvases = np.stack([np.moveaxis(each.picture.canvas, 0, -1) for each in drawn])
    text, real = HashTextEncoder(max_tokens=2).encode([each.caption for each in drawn])
    return Shots(
        x0=to_model_range(torch.from_numpy(np.clip(canvases, 0, 255).astype(np.uint8))),
        text=text,
        real=real,
        camera=_camera(torch.stack([each.poses for each in drawn])),
        depth=_depth(torch.from_numpy(np.stack([each.picture.depth for each in drawn]))),
        elements=torch.stack([each.element for each in drawn])[:, None],
        truck_m=torch.tensor([each.truck_m for each in drawn]),
        shown=torch.from_numpy(np.stack([each.picture.instances for each in drawn]) > 0),
        colour=torch.tensor([each.colour for each in drawn]),
    )


def _camera(of_world: Float[Tensor, "N F 3 4"]) -> Float[Tensor, "N F 12"]:
    relative = relative_poses(of_world)
    scaled = torch.cat((relative[..., :3], relative[..., 3:] / _POSE_UNIT_M), dim=-1)
    return flatten_poses(scaled).to(torch.float32)


def _depth(depth_m: Float[Tensor, "N F H W"]) -> Float[Tensor, "N 3 F H W"]:
    """Inverse depth, -1 at the wall and 1 at the thing, in the three channels of a video."""
    nearness = (1 / depth_m - 1 / WALL_M) / (1 / THING_M - 1 / WALL_M)
    return (2 * nearness - 1)[:, None].expand(-1, 3, -1, -1, -1).contiguous()


def _shot(rng: np.random.Generator, num_frames: int, side_px: int) -> _Shot:
    """Every choice is independent of the others, so that no condition tells what another is for by habit."""
    stage = Stage(width_px=side_px, height_px=side_px, fps=num_frames)
    brightness = str(rng.choice(list(_WALLS)))
    colour = int(rng.integers(len(LOOKS)))
    look = Look(shape=SHAPES[rng.integers(len(SHAPES))], colour=LOOKS[colour], pattern="plain")
    truck_m, radius_m = float(rng.uniform(-TRUCK_M, TRUCK_M)), float(rng.uniform(*_RADII_M))
    # Where it is seen when the camera is half way.
    aside, below = rng.uniform(-_ASIDE_RATIO, _ASIDE_RATIO, 2) * THING_M
    place = (_START_M + truck_m / 2 + aside, below - _EYE_M, THING_M)
    world = World(
        stage=stage,
        num_frames=num_frames,
        room=_room(_WALLS[brightness]),
        things=(thing(look, radius_m, np.tile(place, (num_frames, 1))),),
        parts=(),
    )
    views = _trucking(stage, num_frames, truck_m)
    image = torch.from_numpy(portrait(look, _ELEMENT_PX).rgb.copy())
    return _Shot(
        picture=shoot(world, views),
        poses=torch.from_numpy(views.poses),
        element=to_model_range(image[None, None])[0, :, 0],
        caption=f"{brightness} wall",
        truck_m=truck_m,
        colour=colour,
    )


def _trucking(stage: Stage, num_frames: int, truck_m: float) -> Views:
    zero = np.zeros(num_frames)
    eyes = np.tile((_START_M, -_EYE_M, 0.0), (num_frames, 1))
    eyes[:, 0] += truck_m * np.linspace(0, 1, num_frames)
    return Views(poses(eyes, zero, zero, zero), intrinsics(stage, zero + 1))


def _room(rgb: tuple[float, float, float]) -> Room:
    surface = Surface(rgb, "cloudy", _CONTRAST)
    return Room(
        half_width_m=2 * WALL_M,
        front_m=WALL_M,
        wall_m=20 * WALL_M,
        ground=surface,
        wall=surface,
        sky=surface,
        haze_rgb=(0.0, 0.0, 0.0),
        haze_m=np.inf,
        texture_seed=0,
    )


def look_levels() -> Float[Tensor, "looks 3"]:
    """RGB levels of :data:`LOOKS`."""
    return torch.tensor([COLOURS[name] for name in LOOKS], dtype=torch.float32)
