"""The room around the things: floor, walls and sky by ray casting, textured by tiles, and the shadows on the floor."""

import functools

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import tone
from telecine_models.backlot.rays import Rays
from telecine_models.backlot.scene import Texture
from telecine_models.backlot.world import HEIGHT_RATIOS, Room, Thing

Floats = npt.NDArray[np.float32]

TILE_M = 8.0
SKY_DEPTH_M = 100.0
"""Depth of the sky, which has none."""
_TYPICAL_DEPTH_M = 5.0
_MIN_TILE, _MAX_TILE = 64, 512
_RANDOM = ("striped", "cloudy")
"""Textures that a seed makes different."""
_SIDE_WALLS_LIGHT = np.float32(0.9)


def paint_room(room: Room, rays: Rays, canvas: Floats, depth: Floats) -> None:
    """Fill ``canvas`` [3, f, h, w] and ``depth`` [f, h, w] with the room alone."""
    x, y, z = (rays.along(rays.rotation[:, :, axis]) for axis in range(3))
    eye_x, eye_y, eye_z = (rays.eyes_m[:, axis, None, None].astype(np.float32) for axis in range(3))
    # A ray along a wall meets it infinitely far away, and one straight up meets nothing at all.
    with np.errstate(divide="ignore", invalid="ignore"):
        to_sides = _exit(x, room.half_width_m - eye_x, -room.half_width_m - eye_x)
        to_ends = _exit(z, room.front_m - eye_z, -room.half_width_m - eye_z)
        on_side = to_sides < to_ends
        far = np.where(on_side, to_sides, to_ends)
        height = np.maximum(eye_y + far * y, np.float32(-SKY_DEPTH_M))
        is_ground = height > 0
        np.copyto(far, -eye_y / y, where=is_ground)
        along_x, along_z = eye_x + far * x, eye_z + far * z
    # On a wall one of x and z is constant, so their sum runs along it.
    u = np.where(is_ground, along_x, along_x + along_z)
    v = np.where(is_ground, along_z, height)
    is_sky = height < -room.wall_m
    material = np.where(is_ground, 0, np.where(is_sky, 2, 1)).astype(np.int32)
    light = _lookup(room, float(rays.focal_px[0]), material, u, v)
    light *= np.where(on_side & ~is_ground & ~is_sky, _SIDE_WALLS_LIGHT, np.float32(1))
    np.copyto(far, np.float32(SKY_DEPTH_M), where=is_sky)
    depth[:] = far
    _colour(room, material, light, far, canvas)


def shadow(thing: Thing, frames: slice, rays: Rays, canvas: Floats, depth: Floats) -> None:
    """Darken the ground below a thing, the more the nearer to the ground it is."""
    lowest = -thing.centers_m[frames, 1] - HEIGHT_RATIOS[thing.look.shape] * thing.radius_m
    strength = 0.45 * np.clip(1 - lowest / 2.0, 0, 1) * thing.shown[frames]
    feet = thing.centers_m[frames] * (1.0, 0.0, 1.0)
    seen = np.einsum("fij,fj->fi", rays.rotation, feet) + rays.shift
    if strength.max() <= 0 or seen[:, 2].min() < 2 * thing.radius_m:
        return
    rows, columns = _around(seen, 1.4 * thing.radius_m, rays)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    x, y, z = (rays.along(rays.rotation[:, :, axis], (rows, columns)) for axis in range(3))
    eye = rays.eyes_m[:, :, None, None].astype(np.float32)
    with np.errstate(divide="ignore"):
        far = -eye[:, 1] / y
    near = np.abs(far - depth[:, rows, columns]) < np.float32(1e-3) * far
    far = np.where(near, far, 0)
    aside = eye[:, 0] + far * x - feet[:, 0, None, None].astype(np.float32)
    ahead = eye[:, 2] + far * z - feet[:, 2, None, None].astype(np.float32)
    soft = np.clip(1.4 - np.hypot(aside, 1.5 * ahead) / np.float32(thing.radius_m), 0, 1)
    canvas[:, :, rows, columns] *= 1 - strength[:, None, None].astype(np.float32) * soft * near


def _around(seen: npt.NDArray[np.float64], radius: float, rays: Rays) -> tuple[slice, slice]:
    """Rows and columns of a disc's surroundings, all frames together."""
    sizes = rays.y.shape[1], rays.x.shape[2]
    scale = rays.focal_px / (seen[:, 2] - radius / 1.4)
    slices = []
    for axis, size in ((1, sizes[0]), (0, sizes[1])):
        middle = seen[:, axis] * rays.focal_px / seen[:, 2] + size / 2
        low, high = int((middle - radius * scale).min()) - 1, int((middle + radius * scale).max()) + 2
        slices.append(slice(max(low, 0), min(max(high, 0), size)))
    return slices[0], slices[1]


def _exit(direction: Floats, to_high: Floats, to_low: Floats) -> Floats:
    """How far rays go, from between two parallel walls, until they meet one."""
    inverse = 1 / direction
    return np.maximum(to_high * inverse, to_low * inverse)


def _colour(room: Room, material: npt.NDArray[np.int32], light: Floats, far: Floats, canvas: Floats) -> None:
    surfaces = np.array([room.ground.rgb, room.wall.rgb, room.sky.rgb], np.float32)
    if np.isfinite(room.haze_m):
        # Half at haze_m, and none before a sky that is haze already.
        hidden = np.where(material == 2, 0, 1 - np.exp2(far * np.float32(-1 / room.haze_m))).astype(np.float32)
        light *= 1 - hidden
    for channel in range(3):
        np.multiply(surfaces[:, channel].take(material), light, out=canvas[channel])
        if np.isfinite(room.haze_m):
            canvas[channel] += np.float32(room.haze_rgb[channel]) * hidden


def _lookup(room: Room, focal_px: float, material: npt.NDArray[np.int32], u: Floats, v: Floats) -> Floats:
    """Brightness of the surfaces' textures at places ``u`` and ``v`` on them."""
    size = _tile_size(focal_px)
    footprint = max(1, round(_TYPICAL_DEPTH_M / focal_px / (TILE_M / size)))
    textures = tuple((each.texture, each.contrast) for each in (room.ground, room.wall, room.sky))
    tiles = _tiles(textures, room.texture_seed, size, footprint)
    bits, mask = size.bit_length() - 1, size - 1
    per_metre = np.float32(size / TILE_M)
    # Far enough from zero to be cut off like a floor, and a whole number of tiles.
    shift = np.float32(size * 16)
    column = (u * per_metre + shift).astype(np.int32)
    column &= mask
    row = (v * per_metre + shift).astype(np.int32)
    row &= mask
    row |= material << bits
    row <<= bits
    row |= column
    found: Floats = tiles.take(row)
    return found


def _tile_size(focal_px: float) -> int:
    """Texels of a tile's side: some two or three to a pixel at a typical depth."""
    return int(np.clip(2 ** round(np.log2(6 * focal_px)), _MIN_TILE, _MAX_TILE))


@functools.lru_cache(maxsize=16)
def _tiles(textures: tuple[tuple[Texture, float], ...], seed: int, size: int, footprint: int) -> Floats:
    """Brightness about 1 of the tiles of textures with their contrasts, one after the other: [size * size] each."""
    return np.concatenate(
        [_tile(texture, contrast, seed if texture in _RANDOM else 0, size, footprint) for texture, contrast in textures]
    )


@functools.lru_cache(maxsize=128)
def _tile(texture: Texture, contrast: float, seed: int, size: int, footprint: int) -> Floats:
    """One tile [size * size], blurred to ``footprint`` texels."""
    return _smooth(1 + contrast * _seamless(texture, seed, size), footprint).ravel()


def _seamless(texture: Texture, seed: int, size: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    if texture in ("cloudy", "gradient"):
        quarter = tone(rng, texture, size // 2, size // 2, size / 2)
        half = np.concatenate((quarter, quarter[::-1]))
        return np.concatenate((half, half[:, ::-1]), axis=1)
    # Whole periods only: eight squares, six stripes.
    return tone(rng, texture, size, size, size * (7 / 8 if texture == "checkered" else 6 / 8))


def _smooth(plane: npt.NDArray[np.float64], footprint: int) -> Floats:
    for axis in (0, 1):
        plane = np.mean([np.roll(plane, offset - footprint // 2, axis=axis) for offset in range(footprint)], axis=0)
    return plane.astype(np.float32)
