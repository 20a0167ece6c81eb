"""What is to be seen in one shot: objects with their paths, a backdrop, a camera pan, and the caption that says so.

Positions are pixels of the frame, x to the right and y down; pixel (0, 0) covers 0..1 in both.
"""

import dataclasses
import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt

Shape = Literal["circle", "square", "triangle"]
Motion = Literal["left", "right", "up", "down", "bounce", "still"]
Texture = Literal["plain", "gradient", "checkered", "striped", "cloudy"]
Direction = Literal["left", "right", "up", "down"]
Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 52),
    "orange": (245, 137, 30),
    "yellow": (248, 213, 56),
    "green": (56, 172, 82),
    "cyan": (52, 198, 214),
    "blue": (52, 92, 224),
    "purple": (142, 68, 192),
    "pink": (244, 132, 188),
}
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle")
TEXTURES: tuple[Texture, ...] = ("plain", "gradient", "checkered", "striped", "cloudy")
DIRECTIONS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# A pan shows only on a backdrop that varies along it.
_PAN_TEXTURES = ("checkered", "striped", "cloudy")
SMALL_RATIO, LARGE_RATIO = 0.1, 0.155
_BOUNCE_MIN_S = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Size and rate of a film."""

    width_px: int
    height_px: int
    fps: int

    @property
    def side_px(self) -> int:
        """The shorter side, to which sizes and speeds are relative."""
        return min(self.width_px, self.height_px)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Objects of one look and one motion; ``centers_px`` is float64 [count, frames, 2] (x, y)."""

    shape: Shape
    colour: str
    size: Literal["small", "medium", "large"]
    radius_px: float
    motion: Motion
    speed_px_per_s: float
    centers_px: Floats

    @property
    def count(self) -> int:
        return len(self.centers_px)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backdrop:
    """What is behind the objects; the camera pans over it while the objects keep their places in the frame."""

    colour: str
    texture: Texture
    pan: Direction | None
    pan_px_per_s: float
    texture_seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """One shot before it is drawn."""

    stage: Stage
    num_frames: int
    groups: tuple[Group, ...]
    backdrop: Backdrop

    @property
    def caption(self) -> str:
        """One sentence: who does what, where, and what the camera does."""
        subjects = " and ".join(_subject(group) for group in self.groups)
        texture = "" if self.backdrop.texture == "plain" else f"{self.backdrop.texture} "
        ground = f"{texture}{self.backdrop.colour} background"
        camera = f" while the camera pans {self.backdrop.pan}" if self.backdrop.pan else ""
        return f"{subjects} on {_article(ground)} {ground}{camera}"


def compose(
    rng: np.random.Generator, stage: Stage, num_frames: int, *, moving: bool, unlike: str | None = None
) -> Scene:
    """Draw a shot of ``num_frames`` frames, every colour in it used once.

    Args:
        moving: otherwise everything stands still, and so does the camera.
        unlike: a colour that the backdrop must not have, because the shot before had it and a cut should show.
    """
    colours = [str(name) for name in rng.permutation(list(COLOURS))]
    ground = next(colour for colour in colours if colour != unlike)
    colours.remove(ground)
    backdrop = _draw_backdrop(rng, stage, ground, moving)
    regions = _draw_regions(rng, stage)
    groups = (_draw_group(rng, stage, num_frames, region, colours.pop(), moving) for region in regions)
    return Scene(stage=stage, num_frames=num_frames, groups=tuple(groups), backdrop=backdrop)


def _draw_backdrop(rng: np.random.Generator, stage: Stage, colour: str, moving: bool) -> Backdrop:
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    pan = list(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
    pans = moving and texture in _PAN_TEXTURES and rng.uniform() < 0.6
    speed = rng.uniform(0.1, 0.3) * stage.side_px
    return Backdrop(
        colour=colour,
        texture=texture,
        pan=pan if pans else None,
        pan_px_per_s=speed if pans else 0.0,
        texture_seed=int(rng.integers(2**32)),
    )


def _draw_regions(rng: np.random.Generator, stage: Stage) -> list[Box]:
    """The whole frame for one group, or a half for each of two, so that groups never hide each other."""
    width, height = float(stage.width_px), float(stage.height_px)
    layout = rng.choice(3, p=(0.65, 0.175, 0.175))
    if layout == 0:
        return [(0.0, 0.0, width, height)]
    if layout == 1:
        return [(0.0, 0.0, width / 2, height), (width / 2, 0.0, width, height)]
    return [(0.0, 0.0, width, height / 2), (0.0, height / 2, width, height)]


def _draw_group(
    rng: np.random.Generator, stage: Stage, num_frames: int, region: Box, colour: str, moving: bool
) -> Group:
    duration_s = num_frames / stage.fps
    motion = _draw_motion(rng, duration_s) if moving else "still"
    cells = _cells(region, int(rng.integers(1, 4)), sideways=motion in ("up", "down"))
    x0, y0, x1, y1 = cells[0]
    radius = min(rng.uniform(0.08, 0.2) * stage.side_px, 0.4 * min(x1 - x0, y1 - y0))
    ratio = radius / stage.side_px
    times_s = np.arange(num_frames) / stage.fps
    rooms = [(x0 + radius, y0 + radius, x1 - radius, y1 - radius) for x0, y0, x1, y1 in cells]
    speed, centers = _draw_paths(rng, motion, rooms, times_s, max_speed=0.8 * stage.side_px)
    return Group(
        shape=SHAPES[rng.integers(len(SHAPES))],
        colour=colour,
        size="small" if ratio < SMALL_RATIO else "large" if ratio > LARGE_RATIO else "medium",
        radius_px=float(radius),
        motion=motion,
        speed_px_per_s=speed,
        centers_px=centers,
    )


def _draw_motion(rng: np.random.Generator, duration_s: float) -> Motion:
    kinds: list[Motion] = ["left", "right", "up", "down"]
    if duration_s >= _BOUNCE_MIN_S:
        kinds.append("bounce")
    return kinds[rng.integers(len(kinds))]


def _cells(region: Box, count: int, *, sideways: bool) -> list[Box]:
    """Equal parts of a region, side by side or one above the other; each object keeps to its own."""
    x0, y0, x1, y1 = region
    if sideways:
        edges = np.linspace(x0, x1, count + 1)
        return [(float(left), y0, float(right), y1) for left, right in itertools.pairwise(edges)]
    edges = np.linspace(y0, y1, count + 1)
    return [(x0, float(top), x1, float(bottom)) for top, bottom in itertools.pairwise(edges)]


def _draw_paths(
    rng: np.random.Generator, motion: Motion, rooms: list[Box], times_s: Floats, max_speed: float
) -> tuple[float, Floats]:
    """Speed in pixels per second and the centres [count, frames, 2], each within its object's room."""
    low, high = np.array(rooms)[:, None, :2], np.array(rooms)[:, None, 2:]
    if motion == "still":
        return 0.0, np.repeat(rng.uniform(low, high), len(times_s), axis=1)
    if motion == "bounce":
        return _bounce(rng, low, high, times_s, 0.4 * max_speed)
    return _glide(rng, motion, low, high, times_s, max_speed)


def _bounce(
    rng: np.random.Generator, low: Floats, high: Floats, times_s: Floats, min_speed: float
) -> tuple[float, Floats]:
    """Straight diagonal paths, reflected at the edges of the rooms and fast enough to reach one."""
    size = high - low
    start = rng.uniform(0.2, 0.8, size=size.shape) * size
    # At these angles either axis gets at least 0.58 of the speed, and 0.8 of the room is the longest way to an edge.
    speed = max(min_speed, 1.5 * float(size.max()) / float(times_s[-1]))
    angles = (rng.uniform(0.2, 0.3, size=(len(size), 1)) + rng.integers(4, size=(len(size), 1)) / 2) * np.pi
    step = speed * np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    return speed, low + _reflect(start + step * times_s[:, None], size)


def _glide(
    rng: np.random.Generator, motion: Direction, low: Floats, high: Floats, times_s: Floats, max_speed: float
) -> tuple[float, Floats]:
    """Straight paths along one axis that end before the edge of the room, so that the direction holds all the time."""
    axis = 0 if motion in ("left", "right") else 1
    sign = sum(DIRECTIONS[motion])
    room = high[0, 0, axis] - low[0, 0, axis]
    duration_s = max(float(times_s[-1]), 1e-9)
    speed = min(rng.uniform(0.5, 0.85) * float(room) / duration_s, max_speed)
    begin, end = low.copy(), high.copy()
    (end if sign > 0 else begin)[..., axis] -= sign * speed * duration_s
    path = np.repeat(rng.uniform(begin, end), len(times_s), axis=1)
    path[..., axis] += sign * speed * times_s
    return speed, path


def _reflect(position: Floats, size: Floats) -> Floats:
    """Fold positions on a line into 0..size, as if reflected at both ends."""
    folded: Floats = size - np.abs(np.mod(position, 2 * size) - size)
    return folded


def _subject(group: Group) -> str:
    one = group.count == 1
    size = "" if group.size == "medium" else f"{group.size} "
    look = f"{size}{group.colour} {group.shape}"
    number = _article(look) if one else {2: "two", 3: "three"}[group.count]
    verb = {"bounce": "bounce", "still": "stay"}.get(group.motion, "move")
    where = {"bounce": "around", "still": "still"}.get(group.motion, group.motion)
    return f"{number} {look}{'' if one else 's'} {verb}{'s' if one else ''} {where}"


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"
