"""The renderer: what a pinhole camera sees of a world, with the depth and the thing at the centre of every pixel.

All is exact ray casting. Frames are drawn a few at a time, in planes of one channel, so that what is worked on stays in
the cache; each thing touches only the pixels around it.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.camera import Views
from telecine_models.backlot.draw import lit, signed_distance
from telecine_models.backlot.rays import Crop, Rays
from telecine_models.backlot.room import paint_room, shadow
from telecine_models.backlot.world import Pattern, Thing, World

Floats = npt.NDArray[np.float32]
Plane = npt.NDArray[np.float64]

_NEAR_M = 0.05
_PIXELS_AT_A_TIME = 65536
_DARK = np.float32(0.4)
"""How much darker the dark parts of a pattern are."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What was seen.

    Attributes:
        canvas: float32 [3, F, H, W] levels, not yet cut off at 0 and 255.
        depth: float32 [F, H, W], the camera's z of what lies at the centre of the pixel, in metres.
        instances: uint8 [F, H, W], 1 + index of the thing at the centre of the pixel, 0 where there is none.
        pixels: int64 [N, F], how many pixels show each thing.
        pixels_alone: int64 [N, F], how many would if there were no other.
        boxes: int64 [N, F, 4], x0, y0, x1, y1 of those that do, ends exclusive; zeros if none do.
    """

    canvas: Floats
    depth: Floats
    instances: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.int64]
    pixels_alone: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]


def shoot(world: World, views: Views) -> Picture:
    """Draw every frame of a world as the camera sees it."""
    num_frames, height, width = world.num_frames, world.stage.height_px, world.stage.width_px
    num_things = len(world.things)
    picture = Picture(
        canvas=np.empty((3, num_frames, height, width), np.float32),
        depth=np.empty((num_frames, height, width), np.float32),
        instances=np.zeros((num_frames, height, width), np.uint8),
        pixels=np.zeros((num_things, num_frames), np.int64),
        pixels_alone=np.zeros((num_things, num_frames), np.int64),
        boxes=np.zeros((num_things, num_frames, 4), np.int64),
    )
    step = max(1, _PIXELS_AT_A_TIME // (height * width))
    if views.are_still:
        first = slice(0, 1)
        paint_room(world.room, Rays(views, first, height, width), picture.canvas[:, first], picture.depth[first])
        picture.canvas[:, 1:], picture.depth[1:] = picture.canvas[:, first], picture.depth[first]
    for start in range(0, num_frames, step):
        _shoot_some(world, views, slice(start, min(start + step, num_frames)), picture)
    return picture


def _shoot_some(world: World, views: Views, frames: slice, picture: Picture) -> None:
    rays = Rays(views, frames, world.stage.height_px, world.stage.width_px)
    canvas, depth, instances = picture.canvas[:, frames], picture.depth[frames], picture.instances[frames]
    if not views.are_still:
        paint_room(world.room, rays, canvas, depth)
    for each in world.things:
        shadow(each, frames, rays, canvas, depth)
    cards = [Card(each, frames, rays) for each in world.things]
    # The farthest first, for the soft edges; what hides what is decided per pixel.
    for index in sorted(range(len(cards)), key=lambda index: -cards[index].mean_depth_m):
        picture.pixels_alone[index, frames] = cards[index].draw(canvas, depth, instances, index + 1)
    for index, card in enumerate(cards):
        _measure(instances, index + 1, card.crop, picture.pixels[index, frames], picture.boxes[index, frames])


class Card:
    """One thing in some frames, in camera axes."""

    def __init__(self, thing: Thing, frames: slice, rays: Rays) -> None:
        self.thing, self.frames, self.rays = thing, frames, rays
        self.centre = np.einsum("fij,fj->fi", rays.rotation, thing.centers_m[frames]) + rays.shift
        self.mean_depth_m = float(self.centre[:, 2].mean())
        self.crop = self._crop()

    def draw(
        self, canvas: Floats, depth: Floats, instances: npt.NDArray[np.uint8], label: int
    ) -> npt.NDArray[np.int64]:
        """Draw the card where nothing nearer is; returns how many pixels [f] it has, hidden ones too."""
        if self.crop[0].start >= self.crop[0].stop or self.crop[1].start >= self.crop[1].stop:
            return np.zeros(len(self.centre), np.int64)
        here = (slice(None), *self.crop)
        far, u, v = self._hit()
        distance = signed_distance(self.thing.look.shape, u, v, self.thing.radius_m)
        exists = (far > _NEAR_M) & self.thing.shown[self.frames, None, None]
        inside = (distance < 0) & exists
        front = exists & (far < depth[here])
        pixels_per_metre = self._column(self.rays.focal_px) / np.maximum(far, np.float32(_NEAR_M))
        cover = np.clip(0.5 - distance * pixels_per_metre, 0, 1) * front
        shade = lit(distance, u, v, self.thing.radius_m) * pattern_tone(
            self.thing.look.pattern, u, v, self.thing.radius_m
        )
        rgb = self.thing.rgb[self.frames]
        for channel in range(3):
            patch = canvas[channel][here]
            patch += cover * (shade * self._column(rgb[:, channel]) - patch)
        hit = inside & front
        np.copyto(depth[here], far, where=hit)
        np.copyto(instances[here], np.uint8(label), where=hit)
        num_pixels: npt.NDArray[np.int64] = inside.sum(axis=(1, 2))
        return num_pixels

    def _hit(self) -> tuple[Floats, Floats, Floats]:
        """Depth, and place on the card to the right and down of its centre, where each ray meets the card's plane."""
        angle = np.radians(self.thing.facing_deg)
        right = self.rays.rotation @ np.array((np.cos(angle), 0.0, -np.sin(angle)))
        down = self.rays.rotation @ np.array((0.0, 1.0, 0.0))
        normal = self.rays.rotation @ np.array((np.sin(angle), 0.0, np.cos(angle)))
        # A ray within the plane meets it very far away.
        slope = self.rays.along(normal, self.crop) + np.float32(1e-12)
        far = self._column((normal * self.centre).sum(axis=1)) / slope
        u = far * self.rays.along(right, self.crop) - self._column((right * self.centre).sum(axis=1))
        v = far * self.rays.along(down, self.crop) - self._column((down * self.centre).sum(axis=1))
        return far, u, v

    def _crop(self) -> Crop:
        """Rows and columns that the card may touch in any of the frames."""
        height, width = self.rays.y.shape[1], self.rays.x.shape[2]
        # Near the camera, or behind it, a card may be anywhere.
        radius, depth = self.thing.radius_m, self.centre[:, 2]
        if depth.max() < -radius:
            return slice(0, 0), slice(0, 0)
        if depth.min() < radius + _NEAR_M:
            return slice(0, height), slice(0, width)
        sides = self.centre[:, :2, None] + np.array((-radius, radius))
        seen = self.rays.focal_px[:, None, None, None] * (
            sides[..., None] / (depth[:, None, None, None] + np.array((-radius, radius)))
        )
        low, high = seen.min(axis=(0, 2, 3)), seen.max(axis=(0, 2, 3))
        left, right = int(low[0] + width / 2) - 2, int(high[0] + width / 2) + 3
        top, bottom = int(low[1] + height / 2) - 2, int(high[1] + height / 2) + 3
        return slice(max(top, 0), min(max(bottom, 0), height)), slice(max(left, 0), min(max(right, 0), width))

    @staticmethod
    def _column(values: Plane) -> Floats:
        return values[:, None, None].astype(np.float32)


def pattern_tone(pattern: Pattern, u: Floats, v: Floats, radius: float) -> Floats | np.float32:
    """By what a pattern multiplies the colour of a thing, at places ``u`` to the right and ``v`` down of its centre."""
    if pattern == "plain":
        return np.float32(1)
    scale = np.float32(1 / radius)
    if pattern == "striped":
        wave = np.sin((7 * scale) * u)
    elif pattern == "ringed":
        wave = np.sin((9 * scale) * np.hypot(u, v))
    elif pattern == "checkered":
        wave = 1.6 * np.sin((6 * scale) * u) * np.sin((6 * scale) * v)
    else:
        wave = 2 * np.cos((7 * scale) * u) * np.cos((7 * scale) * v) - 1
    toned: Floats = 1 - _DARK * np.clip(1.5 * wave + np.float32(0.5), 0, 1).astype(np.float32)
    return toned


def _measure(
    instances: npt.NDArray[np.uint8],
    label: int,
    crop: Crop,
    pixels: npt.NDArray[np.int64],
    boxes: npt.NDArray[np.int64],
) -> None:
    """Count the pixels of one thing, and find their boxes."""
    shown = instances[:, crop[0], crop[1]] == label
    if not shown.size:
        return
    pixels[:] = shown.sum(axis=(1, 2))
    some = pixels > 0
    for side, (line, begin) in enumerate(((shown.any(axis=1), crop[1].start), (shown.any(axis=2), crop[0].start))):
        boxes[some, side] = begin + line.argmax(axis=1)[some]
        boxes[some, side + 2] = begin + line.shape[1] - line[:, ::-1].argmax(axis=1)[some]
