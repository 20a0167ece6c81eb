"""What there is to be seen in a clip: things at real places in a room, before any camera looks at them.

Units are metres and axes those of :mod:`telecine_models.backlot.camera`. Things are flat upright cards with the shapes
of the films; the room is a floor, four walls around the camera, and a sky where the walls end.
"""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.camera import EYE_HEIGHT_M
from telecine_models.backlot.scene import COLOURS, LARGE_RATIO, SHAPES, SMALL_RATIO, Group, Shape, Stage, Texture

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Pattern = Literal["plain", "striped", "dotted", "checkered", "ringed"]

PATTERNS: tuple[Pattern, ...] = ("plain", "striped", "dotted", "checkered", "ringed")
HEIGHT_RATIOS: dict[Shape, float] = {"circle": 1.0, "square": 0.5**0.5, "triangle": 0.5}
"""How far a shape reaches below its centre, in its radius: how high the centre is when it stands on the ground."""

STANDS = "stands on the ground"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """By what a thing is known again: its identity."""

    shape: Shape
    colour: str
    pattern: Pattern


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """A card that shows ``look``.

    Attributes:
        radius_m: of the circle around the shape.
        facing_deg: how far the card is turned about the vertical; at 0 it faces a camera that looks forward.
        centers_m: float64 [F, 3].
        shown: bool [F]; where False there is nothing.
        colours: the colour of each frame; all are ``look.colour`` unless something changes it.
    """

    look: Look
    radius_m: float
    centers_m: Floats
    facing_deg: float = 0.0
    shown: Bools
    colours: tuple[str, ...]

    @property
    def rgb(self) -> Floats:
        """Levels of each frame [F, 3]."""
        return np.array([COLOURS[colour] for colour in self.colours], np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Things of one look, and in words what they do, as in "two small red circles move left".

    Attributes:
        members: indices of its things.
        deed: what they do, with the verbs of one thing or of several, as their number asks for.
    """

    look: Look
    size: Literal["small", "medium", "large"]
    members: tuple[int, ...]
    deed: str

    @property
    def count(self) -> int:
        return len(self.members)


@dataclasses.dataclass(frozen=True)
class Surface:
    """What the ground, the walls or the sky look like: RGB levels, and a texture that varies them."""

    rgb: tuple[float, float, float]
    texture: Texture
    contrast: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """Walls at x = -half_width_m, half_width_m and z = -half_width_m, front_m; ``haze`` hides what is far.

    Attributes:
        wall_m: height of the walls; above it there is sky.
        haze_m: distance at which half of a surface's colour is the haze's; infinite for clear air.
    """

    half_width_m: float
    front_m: float
    wall_m: float
    ground: Surface
    wall: Surface
    sky: Surface
    haze_rgb: tuple[float, float, float]
    haze_m: float
    texture_seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """A room with things in it, and the parts that they play."""

    stage: Stage
    num_frames: int
    room: Room
    things: tuple[Thing, ...]
    parts: tuple[Part, ...]


def thing(look: Look, radius_m: float, centers_m: Floats, facing_deg: float = 0.0) -> Thing:
    """A thing that is always there and keeps its colour."""
    num_frames = len(centers_m)
    return Thing(
        look=look,
        radius_m=radius_m,
        centers_m=centers_m,
        facing_deg=facing_deg,
        shown=np.ones(num_frames, np.bool_),
        colours=(look.colour,) * num_frames,
    )


def draw_look(rng: np.random.Generator, shape: Shape, colour: str) -> Look:
    """A look with a random pattern; two in five are plain."""
    pattern = PATTERNS[rng.choice(len(PATTERNS), p=(0.4, 0.15, 0.15, 0.15, 0.15))]
    return Look(shape=shape, colour=colour, pattern=pattern)


def ground_depth_m(stage: Stage) -> float:
    """Depth at which the ground comes into view at the lower edge of a camera that looks forward from eye height."""
    return EYE_HEIGHT_M * 2 * stage.side_px / stage.height_px


def lift(rng: np.random.Generator, stage: Stage, groups: tuple[Group, ...]) -> tuple[list[Thing], list[Part]]:
    """Take the objects of a film into the world, each to a depth of its own where it is above the ground.

    Seen from the first pose of a camera move, every object has the place and the size in the frame that it had before.
    """
    things: list[Thing] = []
    parts: list[Part] = []
    for group in groups:
        look = draw_look(rng, group.shape, group.colour)
        members = tuple(range(len(things), len(things) + group.count))
        for centers_px in group.centers_px:
            depth = float(rng.uniform(0.6, 0.92)) * ground_depth_m(stage)
            things.append(thing(look, group.radius_px * depth / stage.side_px, _lifted(stage, centers_px, depth)))
        parts.append(Part(look=look, size=group.size, members=members, deed=_deed(group)))
    return things, parts


def _lifted(stage: Stage, centers_px: Floats, depth_m: float) -> Floats:
    middle = np.array((stage.width_px / 2, stage.height_px / 2))
    places = (centers_px - middle) * (depth_m / stage.side_px)
    return np.column_stack((places[:, 0], places[:, 1] - EYE_HEIGHT_M, np.full(len(places), depth_m)))


def _deed(group: Group) -> str:
    several = group.count > 1
    if group.motion == "still":
        return "stay still" if several else "stays still"
    if group.motion == "bounce":
        return "bounce around" if several else "bounces around"
    return f"{'move' if several else 'moves'} {group.motion}"


def size_name(ratio: float) -> Literal["small", "medium", "large"]:
    """The word for a radius that is ``ratio`` of the shorter side."""
    return "small" if ratio < SMALL_RATIO else "large" if ratio > LARGE_RATIO else "medium"


def scatter(rng: np.random.Generator, num_frames: int, unlike: str | None) -> tuple[list[Thing], list[Part]]:
    """Things that stand on the ground all around the camera, facing it; the first two stand in front of it."""
    colours = [str(name) for name in rng.permutation([name for name in COLOURS if name != unlike])]
    azimuths = [-rng.uniform(6, 20), rng.uniform(6, 20), *(70 + 55 * np.arange(5) + rng.uniform(-15, 15, 5))]
    things: list[Thing] = []
    parts: list[Part] = []
    for index, azimuth in enumerate(float(each) for each in azimuths):
        shape = SHAPES[rng.integers(len(SHAPES))]
        radius, distance = float(rng.uniform(0.35, 0.7)), float(rng.uniform(3.6, 6.0))
        angle = np.radians(azimuth)
        place = distance * np.sin(angle), -HEIGHT_RATIOS[shape] * radius, distance * np.cos(angle)
        look = draw_look(rng, shape, colours[index])
        things.append(thing(look, radius, np.tile(place, (num_frames, 1)), facing_deg=azimuth))
        parts.append(Part(look=look, size=size_name(radius / distance), members=(index,), deed=STANDS))
    return things, parts
