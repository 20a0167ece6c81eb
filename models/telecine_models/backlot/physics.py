"""Plays in which things fall, bounce, collide or pass behind another, by closed formulas; and ways to break the laws.

Every play is exact at every instant, so that what is true between frames, such as when something hits the ground, is
known as well. A violation changes one thing from one frame on.
"""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.actions import GRAVITY_M_PER_S2
from telecine_models.backlot.camera import EYE_HEIGHT_M
from telecine_models.backlot.scene import COLOURS, SHAPES, Shape, Stage
from telecine_models.backlot.sound import Event
from telecine_models.backlot.world import (
    HEIGHT_RATIOS,
    STANDS,
    Part,
    Thing,
    draw_look,
    ground_depth_m,
    size_name,
    thing,
)

Floats = npt.NDArray[np.float64]
Physics = Literal["bounce", "collision", "occlusion"]
Violation = Literal["floating", "passing through", "vanishing", "teleporting", "changing colour"]

VIOLATIONS: dict[Physics, tuple[Violation, ...]] = {
    "bounce": ("floating", "vanishing", "teleporting", "changing colour"),
    "collision": ("passing through", "vanishing", "teleporting", "changing colour"),
    "occlusion": ("vanishing", "teleporting", "changing colour"),
}
PHYSICS: tuple[Physics, ...] = get_args(Physics)
COLLISION_RESTITUTION = 0.9
_MIN_FRAMES = 4
_DEPTH_RATIO = 1.4
_REST_M_PER_S = 0.25
_SCREEN_GAP_M = 0.4
_OUTCOMES: dict[Violation, str] = {
    "floating": "then stops and hangs in the air",
    "vanishing": "then vanishes",
    "teleporting": "then is suddenly elsewhere",
    "changing colour": "then changes its colour",
}


@dataclasses.dataclass(frozen=True)
class Play:
    """Things and their parts, what is heard, and the truth about it as plain JSON values."""

    things: tuple[Thing, ...]
    parts: tuple[Part, ...]
    events: tuple[Event, ...]
    truth: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Ground:
    """The strip of ground on which a play takes place, as the first view sees it."""

    stage: Stage
    num_frames: int

    @property
    def depth_m(self) -> float:
        return _DEPTH_RATIO * ground_depth_m(self.stage)

    @property
    def times_s(self) -> Floats:
        return np.arange(self.num_frames) / self.stage.fps

    @property
    def half_width_m(self) -> float:
        return self.metres(self.stage.width_px / 2)

    @property
    def top_m(self) -> float:
        """Height that the upper edge of the frame has at this depth."""
        return EYE_HEIGHT_M + self.metres(self.stage.height_px / 2)

    def metres(self, length_px: float) -> float:
        return length_px * self.depth_m / self.stage.side_px

    def path(self, x: Floats | float, height: Floats | float, nearer_m: float = 0.0) -> Floats:
        line = np.zeros(self.num_frames)
        return np.column_stack((line + x, line - height, line + self.depth_m - nearer_m))

    def side(self, x: float) -> float:
        """-1 at the left edge of the frame, 1 at the right one."""
        return float(np.clip(x / self.half_width_m, -1, 1))


def play(
    rng: np.random.Generator, stage: Stage, num_frames: int, physics: Physics, violation: Violation | None, unlike: str
) -> Play:
    """Draw a play of ``num_frames`` frames; no thing has the colour ``unlike`` of the background.

    Raises:
        ValueError: the violation is none of this play, or there are too few frames to see anything happen.
    """
    if violation is not None and violation not in VIOLATIONS[physics]:
        raise ValueError(f"clip: violation of {physics} must be one of {VIOLATIONS[physics]}, got {violation!r}")
    if num_frames < _MIN_FRAMES:
        raise ValueError(f"clip: num_frames must be at least {_MIN_FRAMES} with physics, got {num_frames}")
    ground = _Ground(stage, num_frames)
    colours = [str(name) for name in rng.permutation([name for name in COLOURS if name != unlike])]
    made = {"bounce": _bounce, "collision": _collide, "occlusion": _pass_behind}[physics]
    staged = made(rng, ground, colours, violation == "passing through")
    facts = {
        "scenario": physics,
        "plausible": violation is None,
        "violation": violation,
        "violation_s": None,
        "object": None,
        "gravity_m_per_s2": GRAVITY_M_PER_S2,
    }
    staged = dataclasses.replace(staged, truth=facts | staged.truth)
    if violation is None:
        return staged
    if violation == "passing through":
        first = int(np.ceil(staged.truth["contact_s"] * stage.fps))
        return _told(staged, 0, first, stage, violation)
    return _violate(rng, staged, ground, violation, colours[-1])


def bounce_heights(times_s: Floats, drop_m: float, restitution: float) -> tuple[Floats, Floats, Floats]:
    """Height above the ground [T] of what is let fall at time 0, and the times and speeds at which it hits.

    h = drop - g t^2 / 2 until the first hit; every hit keeps ``restitution`` of the speed, until little is left.
    """
    speed = np.sqrt(2 * GRAVITY_M_PER_S2 * drop_m)
    num_hits = 1 + max(0, int(np.ceil(np.log(_REST_M_PER_S / speed) / np.log(restitution))))
    speeds = speed * restitution ** np.arange(num_hits)
    hits = speed / GRAVITY_M_PER_S2 + np.concatenate(([0.0], np.cumsum(2 * speeds[1:] / GRAVITY_M_PER_S2)))
    flight = np.searchsorted(hits, times_s, side="right")
    since = times_s - np.concatenate(([0.0], hits))[flight]
    rise = np.concatenate(([0.0], speeds[1:], [0.0]))[flight]
    start = np.where(flight == 0, drop_m, 0.0)
    heights = start + rise * since - GRAVITY_M_PER_S2 / 2 * since**2
    return np.where(flight == num_hits, 0.0, heights), hits, speeds


def _bounce(rng: np.random.Generator, ground: _Ground, colours: list[str], _: bool) -> Play:
    """One to three things fall, each in a lane of its own."""
    count = int(rng.integers(1, 4))
    lane = 2 * ground.half_width_m / count
    things: list[Thing] = []
    parts: list[Part] = []
    events: list[Event] = []
    for index in range(count):
        shape = SHAPES[rng.integers(len(SHAPES))]
        radius = min(ground.metres(rng.uniform(0.09, 0.16) * ground.stage.side_px), 0.4 * lane)
        floor = HEIGHT_RATIOS[shape] * radius
        first_hit_s = rng.uniform(0.3, 0.5) * max(float(ground.times_s[-1]), 0.2)
        drop = min(GRAVITY_M_PER_S2 / 2 * first_hit_s**2, rng.uniform(0.7, 1.0) * (ground.top_m - radius - floor))
        heights, hits, speeds = bounce_heights(ground.times_s, drop, float(rng.uniform(0.6, 0.85)))
        x = (index + rng.uniform(0.42, 0.58)) * lane - ground.half_width_m
        look = draw_look(rng, shape, colours.pop(0))
        things.append(thing(look, radius, ground.path(x, floor + heights)))
        parts.append(_part(look, radius, ground, index, "falls and bounces on the ground"))
        events += [
            Event(float(hit), "bounce", index, float(speed / speeds[0]), ground.side(x))
            for hit, speed in zip(hits, speeds, strict=True)
            if hit < ground.num_frames / ground.stage.fps
        ]
    return Play(tuple(things), tuple(parts), tuple(sorted(events)), {})


def _collide(rng: np.random.Generator, ground: _Ground, colours: list[str], pass_through: bool) -> Play:
    """Two equal balls meet on the ground, and exchange most of their speeds."""
    radius = ground.metres(rng.uniform(0.09, 0.13) * ground.stage.side_px)
    sign = float(rng.choice((-1.0, 1.0)))
    begin = ground.half_width_m * np.array((-rng.uniform(0.7, 0.85), rng.uniform(0.1, 0.5)))
    contact_s = rng.uniform(0.4, 0.55) * max(float(ground.times_s[-1]), 1e-6)
    closing = (begin[1] - begin[0] - 2 * radius) / contact_s
    second = -closing * float(rng.choice((0.0, 0.25)))
    speeds = np.array((closing + second, second))
    after = speeds if pass_through else collide(speeds, COLLISION_RESTITUTION)
    late = np.maximum(ground.times_s - contact_s, 0)
    looks = [draw_look(rng, "circle", colours.pop(0)) for _ in range(2)]
    words = ("right", "left") if sign > 0 else ("left", "right")
    waits = second == 0
    deeds = (
        f"slides {words[0]} and {'goes through' if pass_through else 'hits'} the {looks[1].colour} circle",
        "waits" if waits and pass_through else "waits and is hit" if waits else f"slides {words[1]}",
    )
    things, parts = [], []
    for index, look in enumerate(looks):
        x = sign * (begin[index] + speeds[index] * (ground.times_s - late) + after[index] * late)
        # A hair's breadth apart in depth, so that one of two that pass through each other is in front.
        things.append(thing(look, radius, ground.path(x, radius, nearer_m=0.005 * index)))
        parts.append(_part(look, radius, ground, index, deeds[index]))
    middle = sign * float(begin[0] + speeds[0] * contact_s + radius)
    event = Event(float(contact_s), "collision", 0, 1.0, ground.side(middle))
    facts = {"contact_s": round(float(contact_s), 4), "restitution": COLLISION_RESTITUTION}
    return Play(tuple(things), tuple(parts), () if pass_through else (event,), facts)


def collide(speeds: Floats, restitution: float) -> Floats:
    """Speeds [2] of two equal balls after a central collision: the sum stays, the difference turns and shrinks."""
    mean, half = speeds.mean(), restitution * (speeds[0] - speeds[1]) / 2
    return np.array((mean - half, mean + half))


def _pass_behind(rng: np.random.Generator, ground: _Ground, colours: list[str], _: bool) -> Play:
    """A thing crosses the view and is hidden by a large square on its way."""
    radius = ground.metres(rng.uniform(0.08, 0.11) * ground.stage.side_px)
    half = 0.22 * ground.stage.side_px * (ground.depth_m - _SCREEN_GAP_M) / ground.stage.side_px
    sign = float(rng.choice((-1.0, 1.0)))
    shape: Shape = SHAPES[rng.integers(len(SHAPES))]
    looks = draw_look(rng, shape, colours.pop(0)), draw_look(rng, "square", colours.pop(0))
    x = sign * np.linspace(-0.85, 0.85, ground.num_frames) * ground.half_width_m
    things = (
        thing(looks[0], radius, ground.path(x, HEIGHT_RATIOS[shape] * radius)),
        thing(looks[1], half / HEIGHT_RATIOS["square"], ground.path(0.0, half, nearer_m=_SCREEN_GAP_M)),
    )
    way = "right" if sign > 0 else "left"
    deeds = f"moves {way} behind the {looks[1].colour} square and comes out again", STANDS
    parts = tuple(
        _part(look, each.radius_m, ground, index, deed)
        for index, (look, each, deed) in enumerate(zip(looks, things, deeds, strict=True))
    )
    return Play(things, parts, (), {})


def _part(look: Any, radius_m: float, ground: _Ground, index: int, deed: str) -> Part:
    return Part(look=look, size=size_name(radius_m / ground.depth_m), members=(index,), deed=deed)


def _violate(rng: np.random.Generator, staged: Play, ground: _Ground, violation: Violation, other_colour: str) -> Play:
    """Change one thing from one frame on: in an occlusion while it is hidden, otherwise while it is seen."""
    occluded = staged.truth["scenario"] == "occlusion"
    index = int(rng.integers(len(staged.things))) if staged.truth["scenario"] == "bounce" else 0
    old = staged.things[index]
    first = ground.num_frames // 2
    # Only once it has hit something, as its part says.
    hit_frame = min((event.time_s for event in staged.events if event.object == index), default=0) * ground.stage.fps
    if not occluded:
        earliest = min(int(hit_frame) + 1, ground.num_frames - 1)
        first = max(earliest, int(rng.uniform(0.4, 0.7) * (ground.num_frames - 1)))
    centers, shown, colours = old.centers_m.copy(), old.shown.copy(), list(old.colours)
    if violation == "floating":
        first = _falling_frame(centers, hit_frame)
        centers[first:] = centers[first]
    elif violation == "vanishing":
        shown[first:] = False
    elif violation == "teleporting":
        # To the other half of the view, as far in it as before.
        side = -np.sign(centers[first, 0]) or 1.0
        centers[first:, 0] += side * ground.half_width_m * (0.75 if not occluded else 0.4)
    else:
        colours[first:] = [other_colour] * (ground.num_frames - first)
    changed = dataclasses.replace(old, centers_m=centers, shown=shown, colours=tuple(colours))
    things = tuple(changed if each == index else kept for each, kept in enumerate(staged.things))
    began_s = first / ground.stage.fps
    silent = violation in ("floating", "vanishing")
    events = tuple(event for event in staged.events if not silent or event.object != index or event.time_s < began_s)
    return _told(dataclasses.replace(staged, things=things, events=events), index, first, ground.stage, violation)


def _falling_frame(centers_m: Floats, hit_frame: float) -> int:
    """A frame of the first fall, in which the thing is still well above the ground: there it stops."""
    heights = -centers_m[: max(2, int(np.ceil(hit_frame))), 1]
    high = np.flatnonzero(heights[1:] > heights[0] - 0.6 * np.ptp(centers_m[:, 1])) + 1
    return int(high[-1]) if len(high) else 1


def _told(staged: Play, index: int, first: int, stage: Stage, violation: Violation) -> Play:
    """The play with its violation in the truth, and in the words of the part that it befalls."""
    truth = staged.truth | {"violation_s": round(first / stage.fps, 4), "object": index}
    parts = list(staged.parts)
    if violation in _OUTCOMES:
        deed = parts[index].deed.replace(" and comes out again", "")
        if violation == "floating":
            deed = "falls"
        parts[index] = dataclasses.replace(parts[index], deed=f"{deed}, {_OUTCOMES[violation]}")
    return dataclasses.replace(staged, parts=tuple(parts), truth=truth)
