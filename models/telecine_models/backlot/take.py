"""A clip: one shot of a small three-dimensional world, with exact truth about every frame."""

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.actions import Actions, Walk, draw_actions, walk, walk_truth
from telecine_models.backlot.camera import CAMERAS, Camera, Move, Views, draw_move, move_views
from telecine_models.backlot.defects import GradedDefect, spoil
from telecine_models.backlot.lens import Picture, shoot
from telecine_models.backlot.physics import PHYSICS, Physics, Play, Violation, play
from telecine_models.backlot.portrait import Reference, portrait
from telecine_models.backlot.scene import Stage, compose
from telecine_models.backlot.sound import Event, Waveform, waveform
from telecine_models.backlot.structured_caption import sentence, structured
from telecine_models.backlot.styles import STYLES, Setting, Style, finish, outdoors, overlay, studio
from telecine_models.backlot.truth import object_truths, part_truth
from telecine_models.backlot.world import Part, World, ground_depth_m, lift, scatter

Floats = npt.NDArray[np.float64]

_MIN_SIDE_PX = 16
_MAX_DEFECTS = 16
# So that clips share no random numbers with the films of the same seed.
_CLIP_STREAM = 3
_PIVOT_RATIO = 0.76
_FLASH_S = 0.12
_FLASH_LIGHT = 0.85


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """What a clip shows and what is true about it.

    Attributes:
        frames: uint8 [F, H, W, 3].
        depth: float32 [F, H, W], the camera's z in metres at the centre of each pixel; the sky's is 100.
        instances: uint8 [F, H, W], 1 + index of the object at the centre of each pixel, 0 for none.
        poses: float64 [F, 3, 4], world-to-camera [R|t]; see :mod:`telecine_models.backlot.camera`.
        intrinsics: float64 [F, 3, 3].
        actions: those of the player who moves the camera, F - 1 of them, if there is one.
        events: what is heard.
        truth: the rest, as plain JSON values.
    """

    frames: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    instances: npt.NDArray[np.uint8]
    poses: Floats
    intrinsics: Floats
    actions: Actions | None
    events: tuple[Event, ...]
    parts: tuple[Part, ...]
    truth: dict[str, Any]

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Where each object is seen [N, F, H, W]."""
        labels = np.arange(1, len(self.truth["objects"]) + 1, dtype=np.uint8)
        shown: npt.NDArray[np.bool_] = self.instances == labels[:, None, None, None]
        return shown

    def references(self, side_px: int = 64) -> list[Reference]:
        """An image of the look of each of ``truth["parts"]``."""
        return [portrait(part.look, side_px) for part in self.parts]

    def sound(self, sample_rate_hz: int = 16000, num_channels: int = 1) -> Waveform:
        """Samples, float32 [channels, samples], as long as the clip: see :func:`.sound.waveform`."""
        return waveform(self.events, self.truth["duration_s"], sample_rate_hz=sample_rate_hz, num_channels=num_channels)


def clip(
    seed: int,
    *,
    num_frames: int,
    fps: int,
    width_px: int,
    height_px: int,
    style: Style | None = "studio",
    camera: Camera | None = None,
    actions: Actions | Literal["random"] | None = None,
    physics: Physics | None = None,
    violation: Violation | None = None,
    defects: tuple[tuple[GradedDefect, float], ...] = (),
    num_flashes: int = 0,
) -> Clip:
    """Draw the clip that belongs to ``seed``; the same arguments give the same bytes.

    Without physics and actions, objects move as in the films, silently and at depths of their own. With actions the
    camera is a player's, with objects all around; with physics it stands still unless ``camera`` says otherwise.

    Args:
        style: drawn if None.
        camera: the camera's move, drawn if None.
        actions: ``num_frames - 1`` of them, or random ones in which no key is favoured.
        physics: a play of falling, colliding or hidden objects.
        violation: the law that the play breaks.
        defects: what spoils the frames, in this order, each with its severity in (0, 1]. Depth, masks and all other
            truth stay those of the clip before.
        num_flashes: how often all lights up for a moment.

    Raises:
        ValueError: a negative seed, no frames, no rate, a side shorter than 16 pixels; a style, camera, violation or
            defect that there is not; a camera move beside actions; as many actions as there are not steps.
    """
    order = _Order(
        seed=seed,
        num_frames=num_frames,
        stage=Stage(width_px=width_px, height_px=height_px, fps=fps),
        style=style,
        camera=camera,
        actions=actions,
        physics=physics,
        violation=violation,
        defects=defects,
        num_flashes=num_flashes,
    )
    order.check()
    return _shot(order)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Order:
    """What was asked for."""

    seed: int
    num_frames: int
    stage: Stage
    style: Style | None
    camera: Camera | None
    actions: Actions | Literal["random"] | None
    physics: Physics | None
    violation: Violation | None
    defects: tuple[tuple[GradedDefect, float], ...]
    num_flashes: int

    def check(self) -> None:
        least = {
            "seed": (self.seed, 0),
            "num_frames": (self.num_frames, 1),
            "fps": (self.stage.fps, 1),
            "width_px": (self.stage.width_px, _MIN_SIDE_PX),
            "height_px": (self.stage.height_px, _MIN_SIDE_PX),
            "num_flashes": (self.num_flashes, 0),
        }
        for name, (value, minimum) in least.items():
            if value < minimum:
                raise ValueError(f"clip: {name} must be at least {minimum}, got {value}")
        if self.actions is not None and self.camera is not None:
            raise ValueError(f"clip: camera must be None where actions move it, got {self.camera!r}")
        if isinstance(self.actions, Actions) and len(self.actions) != self.num_frames - 1:
            raise ValueError(
                f"clip: actions must be one fewer than the {self.num_frames} frames, got {len(self.actions)}"
            )
        if self.violation is not None and self.physics is None:
            raise ValueError(f"clip: violation needs physics to violate, got {self.violation!r} without")
        chosen = {"style": (self.style, STYLES), "camera": (self.camera, CAMERAS), "physics": (self.physics, PHYSICS)}
        for name, (word, known) in chosen.items():
            if word is not None and word not in known:
                raise ValueError(f"clip: {name} must be one of {known}, got {word!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Guide:
    """Who moves the camera: a player by actions, or else a move."""

    views: Views
    move: Move | None
    walked: Walk | None


def _shot(order: _Order) -> Clip:
    rng = np.random.default_rng((order.seed, _CLIP_STREAM))
    style = STYLES[rng.integers(len(STYLES))] if order.style is None else order.style
    setting, staged = _stage(rng, order, style)
    guide = _guide(rng, order, setting)
    flash_frames = np.sort(rng.integers(order.num_frames, size=order.num_flashes))
    world = World(
        stage=order.stage, num_frames=order.num_frames, room=setting.room, things=staged.things, parts=staged.parts
    )
    picture = shoot(world, guide.views)
    frames = _develop(picture, style, _flashes(flash_frames, order.num_frames, order.stage.fps))
    for index, (kind, severity) in enumerate(order.defects):
        frames = spoil(frames, kind, severity, order.seed * _MAX_DEFECTS + index)
    events = _events(staged.events, guide.walked, flash_frames, order.stage.fps)
    # A player may never turn to what stands behind.
    seen = tuple(part for part in world.parts if picture.pixels[list(part.members)].any()) or world.parts
    truth = _general_truth(order, setting, seen, guide) | {
        "parts": [part_truth(part) for part in world.parts],
        "objects": object_truths(world, guide.views, picture),
        "actions": walk_truth(guide.walked) if guide.walked else None,
        "physics": staged.truth or None,
        "events": [dataclasses.asdict(event) | {"time_s": round(event.time_s, 4)} for event in events],
    }
    return Clip(
        frames=frames,
        depth=picture.depth,
        instances=picture.instances,
        poses=guide.views.poses,
        intrinsics=guide.views.intrinsics,
        actions=guide.walked.actions if guide.walked else None,
        events=events,
        parts=world.parts,
        truth=truth,
    )


def _stage(rng: np.random.Generator, order: _Order, style: Style) -> tuple[Setting, Play]:
    """Choose the place and who plays in it."""
    scene = compose(rng, order.stage, order.num_frames, moving=True)
    ground = scene.backdrop.colour
    setting = studio(rng, ground, scene.backdrop.texture) if style == "studio" else outdoors(rng, style)
    if order.physics is not None:
        return setting, play(rng, order.stage, order.num_frames, order.physics, order.violation, ground)
    if order.actions is not None:
        things, parts = scatter(rng, order.num_frames, ground)
    else:
        things, parts = lift(rng, order.stage, scene.groups)
    return setting, Play(tuple(things), tuple(parts), (), {})


def _guide(rng: np.random.Generator, order: _Order, setting: Setting) -> _Guide:
    actions = order.actions
    if actions is None:
        move = draw_move(rng, "static" if order.camera is None and order.physics else order.camera)
        pivot_m = _PIVOT_RATIO * ground_depth_m(order.stage)
        return _Guide(move_views(move, order.stage, order.num_frames, pivot_m), move, None)
    if not isinstance(actions, Actions):
        actions = draw_actions(rng, order.num_frames - 1, order.stage.fps)
    walked = walk(actions, order.stage, setting.room)
    return _Guide(walked.views, None, walked)


def _develop(picture: Picture, style: Style, light: Floats) -> npt.NDArray[np.uint8]:
    """Frames [F, H, W, 3] from levels, with what the style adds; ``light`` [F] in 0..1 is that of the flashes."""
    canvas = picture.canvas
    finish(style, canvas)
    lit = np.flatnonzero(light)
    if len(lit):
        share = light[lit, None, None].astype(np.float32)
        canvas[:, lit] += share * (255 - canvas[:, lit])
    frames = np.empty((*canvas.shape[1:], 3), np.uint8)
    frames[...] = np.moveaxis(np.clip(canvas, 0, 255, out=canvas), 0, -1)
    overlay(style, frames)
    return frames


def _flashes(flash_frames: npt.NDArray[np.int64], num_frames: int, fps: int) -> Floats:
    """How much white is in each frame [F]: most in the one in which it flashes, then it fades."""
    since_s = (np.arange(num_frames)[:, None] - flash_frames) / fps
    light = np.where(since_s >= 0, np.exp(-np.maximum(since_s, 0) / _FLASH_S), 0).max(axis=1, initial=0.0)
    return np.where(light > 0.02, _FLASH_LIGHT * light, 0.0)


def _events(
    played: tuple[Event, ...], walked: Walk | None, flash_frames: npt.NDArray[np.int64], fps: int
) -> tuple[Event, ...]:
    landings = [Event(time_s, "landing", -1, 0.6, 0.0) for time_s in (walked.landings_s if walked else ())]
    flashes = [Event(int(frame) / fps, "flash", -1, 1.0, 0.0) for frame in flash_frames]
    return tuple(sorted([*played, *landings, *flashes]))


def _general_truth(order: _Order, setting: Setting, parts: tuple[Part, ...], guide: _Guide) -> dict[str, Any]:
    """What is true of the clip as a whole; ``parts`` are those that are seen."""
    move = guide.move
    caption = structured(parts, setting, move, guide.walked, order.num_flashes, order.defects)
    moved = {"move": "first person", "direction": None, "amount": 0.0, "unit": "none"}
    if move is not None:
        moved = {"move": move.kind, "direction": move.direction, "amount": move.amount, "unit": move.unit}
    return {
        "seed": order.seed,
        "fps": order.stage.fps,
        "width": order.stage.width_px,
        "height": order.stage.height_px,
        "num_frames": order.num_frames,
        "duration_s": order.num_frames / order.stage.fps,
        "licence": "CC0-1.0",
        "consent": "synthetic",
        "style": setting.style,
        "caption": sentence(parts, setting, move),
        "structured_caption": dataclasses.asdict(caption),
        "structured_text": caption.text,
        "camera": moved,
        "background": {"place": setting.place, "colour": setting.colour, "texture": setting.texture},
        "defects": [{"kind": kind, "severity": severity} for kind, severity in order.defects],
    }
