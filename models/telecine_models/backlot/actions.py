"""First-person play: keys and mouse movements that drive the camera, in the layout of GF-Minecraft (arXiv 2501.08325).

Action i leads from frame i to frame i + 1. The world has no obstacles but the walls, where the player stops.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.camera import EYE_HEIGHT_M, Views, intrinsics, poses
from telecine_models.backlot.scene import Stage
from telecine_models.backlot.world import Room

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint8]

KEYS = ("W", "A", "S", "D", "space", "shift", "ctrl")
WALK_M_PER_S = 2.0
SNEAK_RATIO, SPRINT_RATIO = 0.5, 1.5
SNEAK_DROP_M = 0.3
JUMP_M_PER_S = 3.2
GRAVITY_M_PER_S2 = 9.81
MAX_PITCH_DEG = 80.0
_WALL_GAP_M = 0.5
_HOLD_S = 0.5
_MOUSE_DEG_PER_S = 45.0
# The values of GF-Minecraft's ws, ad and scs: none, and then one for each of their keys.
_CHOICES = {"ws": (0, 2), "ad": (1, 3), "scs": (4, 5, 6)}


@dataclasses.dataclass(frozen=True, eq=False)
class Actions:
    """``keys`` uint8 [A, 7] of 0 and 1 in the order of :data:`KEYS`; ``mouse_deg`` float64 [A, 2].

    The mouse turns the view to the right and down by so many degrees at once. Of W and S, of A and D, and of space,
    shift and ctrl one key at most is down.

    Raises:
        ValueError: other shapes, keys that are neither 0 nor 1 or exclude each other, movements that are no numbers.
    """

    keys: Keys
    mouse_deg: Floats

    def __post_init__(self) -> None:
        num = len(self.keys)
        if self.keys.shape != (num, len(KEYS)) or self.mouse_deg.shape != (num, 2):
            raise ValueError(
                f"actions: keys must be [A, {len(KEYS)}] and mouse_deg [A, 2], "
                f"got {self.keys.shape} and {self.mouse_deg.shape}"
            )
        if self.keys.size and self.keys.max() > 1:
            raise ValueError(f"actions: keys must be 0 or 1, got {self.keys.max()}")
        if not np.isfinite(self.mouse_deg).all():
            raise ValueError("actions: mouse_deg must be finite, got NaN or infinity")
        for members in _CHOICES.values():
            together = self.keys[:, members].sum(axis=1)
            if num and together.max() > 1:
                names = " and ".join(KEYS[member] for member in members)
                raise ValueError(f"actions: keys {names} exclude each other, got several in {int(together.argmax())}")

    def __len__(self) -> int:
        return len(self.keys)

    def choice(self, name: str) -> npt.NDArray[np.int64]:
        """GF-Minecraft's ``ws``, ``ad`` or ``scs`` of every action [A]: 0 for none, then 1 for the first key, ..."""
        members = _CHOICES[name]
        chosen: npt.NDArray[np.int64] = self.keys[:, members] @ np.arange(1, len(members) + 1)
        return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """Where actions lead: the views, and per action whether a wall stopped it or a jump was asked for in the air.

    Attributes:
        angles_deg: yaw and pitch of every frame [F, 2].
        landings_s: when the player comes down from a jump.
    """

    actions: Actions
    views: Views
    angles_deg: Floats
    collisions: npt.NDArray[np.bool_]
    jumps_invalid: npt.NDArray[np.bool_]
    landings_s: tuple[float, ...]


def draw_actions(rng: np.random.Generator, num: int, fps: int) -> Actions:
    """Random actions in which no key is favoured: each choice's values are held equally often, in random order.

    Each action holds for half a second. Mouse movements are drawn anew with each hold, evenly about zero.
    """
    hold = max(1, round(_HOLD_S * fps))
    num_holds = -(-num // hold)
    keys = np.zeros((num, len(KEYS)), np.uint8)
    for members in _CHOICES.values():
        held = np.repeat(_balanced(rng, len(members) + 1, num_holds), hold)[:num]
        for value, member in enumerate(members, start=1):
            keys[held == value, member] = 1
    reach = _MOUSE_DEG_PER_S / fps
    mouse = rng.uniform(-reach, reach, size=(num_holds, 2)) * (1.0, 0.4)
    return Actions(keys, np.round(np.repeat(mouse, hold, axis=0)[:num], 3))


def walk(actions: Actions, stage: Stage, room: Room) -> Walk:
    """Carry out actions from the place and the direction in which every camera begins."""
    num_frames = len(actions) + 1
    yaw, pitch = (np.zeros(num_frames) for _ in range(2))
    yaw[1:] = np.cumsum(actions.mouse_deg[:, 0])
    for index, delta in enumerate(actions.mouse_deg[:, 1]):
        pitch[index + 1] = np.clip(pitch[index] + delta, -MAX_PITCH_DEG, MAX_PITCH_DEG)
    eyes = np.zeros((num_frames, 3))
    eyes[:, (0, 2)], collisions = _steps(actions, yaw, stage.fps, room)
    heights, invalid, landings = _jumps(actions.keys[:, 4], num_frames, stage.fps)
    sneaks = np.concatenate(([0], actions.keys[:, 5]))
    eyes[:, 1] = -EYE_HEIGHT_M - heights + SNEAK_DROP_M * sneaks
    seen = Views(
        poses(eyes, np.radians(yaw), np.radians(pitch), np.zeros(num_frames)),
        intrinsics(stage, np.ones(num_frames)),
    )
    return Walk(actions, seen, np.column_stack((yaw, pitch)), collisions, invalid, landings)


def walk_truth(walked: Walk) -> list[dict[str, Any]]:
    """One entry per action: its values, and the state of the player in the frame to which it leads."""
    rows = []
    actions = walked.actions
    choices = [actions.choice(name) for name in _CHOICES]
    for index, eye in enumerate(walked.views.eyes_m[1:]):
        ws, ad, scs = (int(each[index]) for each in choices)
        yaw, pitch = walked.angles_deg[index + 1]
        rows.append(
            {
                "ws": ws,
                "ad": ad,
                "scs": scs,
                "yaw_delta_deg": float(actions.mouse_deg[index, 0]),
                "pitch_delta_deg": float(actions.mouse_deg[index, 1]),
                "yaw_deg": round(float(yaw), 4),
                "pitch_deg": round(float(pitch), 4),
                "position_m": np.round(eye, 4).tolist(),
                "collision": bool(walked.collisions[index]),
                "jump_invalid": bool(walked.jumps_invalid[index]),
            }
        )
    return rows


def _steps(actions: Actions, yaw_deg: Floats, fps: int, room: Room) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Places (x, z) [F, 2], and which actions [A] a wall stopped. A step goes where the view looks once it is made."""
    ahead = actions.keys[:, 0].astype(float) - actions.keys[:, 2]
    aside = actions.keys[:, 3].astype(float) - actions.keys[:, 1]
    speed = WALK_M_PER_S * np.where(actions.keys[:, 5], SNEAK_RATIO, np.where(actions.keys[:, 6], SPRINT_RATIO, 1.0))
    length = speed / fps / np.maximum(np.hypot(ahead, aside), 1.0)
    angle = np.radians(yaw_deg[1:])
    steps = np.column_stack(
        (np.sin(angle) * ahead + np.cos(angle) * aside, np.cos(angle) * ahead - np.sin(angle) * aside)
    )
    steps *= length[:, None]
    low = np.full(2, _WALL_GAP_M - room.half_width_m)
    high = np.array((room.half_width_m, room.front_m)) - _WALL_GAP_M
    places, stopped = np.zeros((len(actions) + 1, 2)), np.zeros(len(actions), np.bool_)
    for index, step in enumerate(steps):
        wanted = places[index] + step
        places[index + 1] = np.clip(wanted, low, high)
        stopped[index] = (places[index + 1] != wanted).any()
    return places, stopped


def _jumps(space: Keys, num_frames: int, fps: int) -> tuple[Floats, npt.NDArray[np.bool_], tuple[float, ...]]:
    """Heights above the ground [F], which actions [A] asked for a jump in the air, and when the player lands."""
    heights, invalid = np.zeros(num_frames), np.zeros(len(space), np.bool_)
    in_air_s = 2 * JUMP_M_PER_S / GRAVITY_M_PER_S2
    began_s, landings = -np.inf, []
    for index, pressed in enumerate(space):
        now_s = index / fps
        if pressed:
            invalid[index] = now_s < began_s + in_air_s
            if not invalid[index]:
                began_s = now_s
                landings.append(now_s + in_air_s)
        since_s = (index + 1) / fps - began_s
        if since_s < in_air_s:
            heights[index + 1] = JUMP_M_PER_S * since_s - GRAVITY_M_PER_S2 / 2 * since_s**2
    return heights, invalid, tuple(landing for landing in landings if landing < num_frames / fps)


def _balanced(rng: np.random.Generator, num_values: int, length: int) -> npt.NDArray[np.int64]:
    """Values [length], each as often as any other within one, the order random."""
    rounds = [rng.permutation(num_values) for _ in range(-(-length // num_values))]
    return np.concatenate([*rounds, np.zeros(0, np.int64)])[:length]
