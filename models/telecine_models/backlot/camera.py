"""Pinhole cameras and their moves: exact poses and intrinsics of every frame.

World axes are x to the right, y down and z forward, in metres; the ground is the plane y = 0, so heights are -y. A pose
is world-to-camera, [R|t] with x_camera = R x_world + t, and camera axes are x right, y down, z forward (as OpenCV has
them). Depth is the camera's z. A pixel (column u, row v) is K x_camera / depth, and pixel (0, 0) covers 0..1 in both.
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.scene import Stage

Floats = npt.NDArray[np.float64]
Camera = Literal[
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "roll clockwise",
    "roll counterclockwise",
    "zoom in",
    "zoom out",
    "dolly in",
    "dolly out",
    "truck left",
    "truck right",
    "orbit left",
    "orbit right",
]

CAMERAS: tuple[Camera, ...] = get_args(Camera)
EYE_HEIGHT_M = 1.6
_AMOUNTS: dict[str, tuple[float, float, str]] = {
    "static": (0.0, 0.0, "none"),
    "pan": (10.0, 20.0, "degrees"),
    "tilt": (6.0, 12.0, "degrees"),
    "roll": (10.0, 25.0, "degrees"),
    "zoom": (1.25, 1.6, "times"),
    "dolly": (0.4, 0.9, "metres"),
    "truck": (0.3, 0.8, "metres"),
    "orbit": (10.0, 22.0, "degrees"),
}
_FORWARD = ("right", "down", "clockwise", "in")


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """Where a camera is in each frame: ``poses`` float64 [F, 3, 4] and ``intrinsics`` float64 [F, 3, 3]."""

    poses: Floats
    intrinsics: Floats

    @property
    def eyes_m(self) -> Floats:
        """Places of the camera in the world [F, 3]."""
        eyes: Floats = -np.einsum("fji,fj->fi", self.poses[:, :, :3], self.poses[:, :, 3])
        return eyes

    @property
    def are_still(self) -> bool:
        """Whether every frame is seen from the same place, in the same direction and with the same lens."""
        return bool((self.poses == self.poses[:1]).all() and (self.intrinsics == self.intrinsics[:1]).all())


@dataclasses.dataclass(frozen=True)
class Move:
    """A camera move: its name, and how far it goes from the first frame to the last, in ``unit``."""

    name: Camera
    amount: float
    unit: str

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def direction(self) -> str | None:
        return self.name.partition(" ")[2] or None


def draw_move(rng: np.random.Generator, name: Camera | None) -> Move:
    """A move of this name, or of a random one, with a random amount."""
    name = CAMERAS[rng.integers(len(CAMERAS))] if name is None else name
    low, high, unit = _AMOUNTS[name.partition(" ")[0]]
    return Move(name, round(float(rng.uniform(low, high)), 3), unit)


def move_views(move: Move, stage: Stage, num_frames: int, pivot_m: float) -> Views:
    """Views of a camera that starts at eye height, looks forward, and moves evenly.

    Args:
        pivot_m: how far ahead the point lies around which an orbit goes.
    """
    share = np.linspace(0.0, 1.0, num_frames)
    sign = 1 if move.direction in _FORWARD else -1
    turn = np.radians(move.amount) * share * sign
    way = move.amount * share * sign
    zero = np.zeros(num_frames)
    eyes = np.tile((0.0, -EYE_HEIGHT_M, 0.0), (num_frames, 1))
    yaw, pitch, roll, zoom = zero, zero, zero, zero + 1
    if move.kind == "pan":
        yaw = turn
    elif move.kind == "tilt":
        pitch = turn
    elif move.kind == "roll":
        roll = turn
    elif move.kind == "zoom":
        zoom = 1 + (move.amount**sign - 1) * share
    elif move.kind == "dolly":
        eyes[:, 2] += way
    elif move.kind == "truck":
        eyes[:, 0] += way
    elif move.kind == "orbit":
        # Going to the right while looking at the pivot means turning to the left.
        yaw = -turn
        eyes[:, 0] += pivot_m * np.sin(turn)
        eyes[:, 2] += pivot_m * (1 - np.cos(turn))
    return Views(poses(eyes, yaw, pitch, roll), intrinsics(stage, zoom))


def intrinsics(stage: Stage, zoom: Floats) -> Floats:
    """K [F, 3, 3] of a lens whose focal length is ``zoom`` [F] times the shorter side: 53 degrees across it at 1."""
    matrices = np.zeros((len(zoom), 3, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = zoom * stage.side_px
    matrices[:, 0, 2], matrices[:, 1, 2], matrices[:, 2, 2] = stage.width_px / 2, stage.height_px / 2, 1.0
    return matrices


def poses(eyes_m: Floats, yaw: Floats, pitch: Floats, roll: Floats) -> Floats:
    """World-to-camera [F, 3, 4] from places [F, 3] and angles [F] in radians.

    Positive yaw looks to the right, positive pitch down; positive roll turns the camera clockwise, so that the picture
    turns counterclockwise. The camera is rolled first, then pitched, then turned about the vertical.
    """
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in (yaw, pitch, roll))
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    turned = _matrices((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    pitched = _matrices((one, zero, zero), (zero, cp, sp), (zero, -sp, cp))
    rolled = _matrices((cr, -sr, zero), (sr, cr, zero), (zero, zero, one))
    rotations = np.swapaxes(turned @ pitched @ rolled, 1, 2)
    return np.concatenate((rotations, -rotations @ eyes_m[:, :, None]), axis=2)


def project(points_m: Floats, views: Views) -> tuple[Floats, Floats]:
    """Pixels [N, F, 2] and depths [N, F] of points of the world [N, F, 3]; a pixel means nothing at depths <= 0."""
    seen = np.einsum("fij,nfj->nfi", views.poses[:, :, :3], points_m) + views.poses[:, :, 3]
    depth = seen[..., 2]
    focal, centre = views.intrinsics[:, 0, 0], views.intrinsics[:, :2, 2]
    safe = np.where(depth > 0, depth, np.inf)
    return seen[..., :2] * (focal / safe)[..., None] + centre, depth


def _matrices(*rows: tuple[Floats, Floats, Floats]) -> Floats:
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
