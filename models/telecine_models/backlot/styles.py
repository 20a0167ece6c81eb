"""How a clip looks as a whole: a studio, an open landscape, or one of two games with their palettes and displays."""

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import muted
from telecine_models.backlot.scene import Texture
from telecine_models.backlot.world import Room, Surface

Style = Literal["studio", "open world", "block game", "neon game"]
Place = Literal["plains", "forest", "desert"]
Floats = npt.NDArray[np.float32]
Rgb = tuple[int, int, int]

STYLES: tuple[Style, ...] = get_args(Style)
GAMES: tuple[Style, ...] = ("block game", "neon game")
PLACES: tuple[Place, ...] = get_args(Place)
_NUM_TEXTURE_SEEDS = 4
_STUDIO_M = 8.0
_POSTER_LEVELS = np.float32(28)
_SCANLINE = np.float32(0.72)

# Ground, wall, sky.
_LANDSCAPES: dict[Place, tuple[Rgb, Rgb, Rgb]] = {
    "plains": ((124, 142, 86), (104, 128, 98), (164, 196, 226)),
    "forest": ((84, 100, 66), (58, 84, 62), (170, 190, 202)),
    "desert": ((196, 172, 128), (176, 142, 104), (184, 206, 224)),
}
_BLOCKS: dict[Place, tuple[Rgb, Rgb, Rgb]] = {
    "plains": ((92, 190, 62), (142, 100, 62), (112, 178, 255)),
    "forest": ((62, 148, 58), (112, 78, 44), (96, 152, 224)),
    "desert": ((236, 208, 128), (214, 150, 72), (128, 196, 255)),
}
_NEON: dict[Place, tuple[Rgb, Rgb, Rgb]] = {
    "plains": ((40, 20, 78), (18, 46, 120), (78, 12, 86)),
    "forest": ((12, 54, 58), (14, 84, 78), (18, 24, 64)),
    "desert": ((78, 24, 40), (112, 22, 84), (50, 10, 54)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a clip plays: a room, and in words what it is. ``place`` is None in a studio."""

    style: Style
    room: Room
    place: Place | None
    colour: str | None
    texture: Texture | None


def studio(rng: np.random.Generator, colour: str, texture: Texture) -> Setting:
    """A high bare room whose floor and walls have a film's backdrop; no sky is seen in it."""
    light = muted(colour)
    wall, ground = (Surface(_rgb(gain * light), texture) for gain in (1.0, 0.84))
    room = Room(
        half_width_m=_STUDIO_M,
        front_m=_STUDIO_M,
        wall_m=10 * _STUDIO_M,
        ground=ground,
        wall=wall,
        sky=wall,
        haze_rgb=(0.0, 0.0, 0.0),
        haze_m=np.inf,
        texture_seed=int(rng.integers(_NUM_TEXTURE_SEEDS)),
    )
    return Setting(style="studio", room=room, place=None, colour=colour, texture=texture)


def outdoors(rng: np.random.Generator, style: Style) -> Setting:
    """One of three places, as the style shows it."""
    place = PLACES[rng.integers(len(PLACES))]
    seed = int(rng.integers(_NUM_TEXTURE_SEEDS))
    levels = {"open world": _LANDSCAPES, "block game": _BLOCKS, "neon game": _NEON}[style][place]
    if style == "open world":
        room = _field(levels, ("cloudy", "cloudy", "cloudy"), (0.7, 0.8, 0.25), seed)
        room = dataclasses.replace(room, haze_rgb=(206.0, 216.0, 226.0), haze_m=22.0, wall_m=2.6)
    elif style == "block game":
        room = _field(levels, ("checkered", "checkered", "plain"), (2.0, 2.4, 0.0), seed)
    else:
        room = _field(levels, ("checkered", "striped", "gradient"), (3.2, 3.2, 1.4), seed)
    return Setting(style=style, room=room, place=place, colour=None, texture=None)


def finish(style: Style, canvas: Floats) -> None:
    """Give rendered levels [3, F, H, W] the grain of their game; other styles stay as they are."""
    if style == "block game":
        canvas *= 1 / _POSTER_LEVELS
        np.floor(canvas, out=canvas)
        canvas *= _POSTER_LEVELS
        canvas += _POSTER_LEVELS / 2
    elif style == "neon game":
        canvas[:, :, 1::2] *= _SCANLINE


def overlay(style: Style, frames: npt.NDArray[np.uint8]) -> None:
    """Draw a game's display over its frames [F, H, W, 3]; other styles have none."""
    height, width = frames.shape[1:3]
    for rows, columns, rgb in _display(style, height, width):
        frames[:, rows, columns] = rgb


@functools.lru_cache(maxsize=64)
def _display(style: Style, height: int, width: int) -> tuple[tuple[slice, slice, Rgb], ...]:
    if style == "block game":
        return _hotbar(height, width)
    if style == "neon game":
        return _gauges(height, width)
    return ()


def _hotbar(height: int, width: int) -> tuple[tuple[slice, slice, Rgb], ...]:
    """A cross in the middle, and at the bottom five slots below a row of hearts."""
    slot = max(2, min(height, width) // 12)
    thin = max(1, slot // 6)
    y, x = height // 2, width // 2
    boxes = [_box(y - thin // 2, x - slot // 2, thin, slot, 235), _box(y - slot // 2, x - thin // 2, slot, thin, 235)]
    left, top = x - 5 * slot // 2, height - slot - thin
    boxes.append(_box(top - thin, left - thin, slot + 2 * thin, 5 * slot + 2 * thin, 60))
    for index in range(5):
        level = 190 if index == 1 else 120
        boxes.append(_box(top, left + index * slot, slot - thin, slot - thin, level))
        heart = _box(top - 2 * thin - slot // 2, left + index * slot, slot // 2, slot // 2, 0)
        boxes.append((heart[0], heart[1], (216, 36, 44)))
    return tuple(boxes)


def _gauges(height: int, width: int) -> tuple[tuple[slice, slice, Rgb], ...]:
    """Two glowing bars at the upper left, and a map with one dot at the upper right."""
    unit = max(1, min(height, width) // 30)
    boxes = []
    for index, (length, rgb) in enumerate(((10, (64, 244, 255)), (7, (255, 72, 208)))):
        rows, columns, _ = _box(unit * (1 + 2 * index), unit, unit, unit * length, 0)
        boxes.append((rows, columns, rgb))
    boxes.append(_box(unit, width - 8 * unit, 7 * unit, 7 * unit, 16))
    rows, columns, _ = _box(4 * unit, width - 5 * unit, unit, unit, 0)
    boxes.append((rows, columns, (64, 244, 255)))
    return tuple(boxes)


def _box(top: int, left: int, height: int, width: int, level: int) -> tuple[slice, slice, Rgb]:
    rows = slice(max(top, 0), max(top, 0) + height)
    return rows, slice(max(left, 0), max(left, 0) + width), (level, level, level)


def _field(
    levels: tuple[Rgb, Rgb, Rgb],
    textures: tuple[Texture, Texture, Texture],
    contrasts: tuple[float, float, float],
    seed: int,
) -> Room:
    """A wide room with low walls; all threes are those of ground, walls and sky."""
    ground, wall, sky = (
        Surface(_rgb(np.array(rgb)), texture, contrast)
        for rgb, texture, contrast in zip(levels, textures, contrasts, strict=True)
    )
    return Room(
        half_width_m=12.0,
        front_m=12.0,
        wall_m=1.8,
        ground=ground,
        wall=wall,
        sky=sky,
        haze_rgb=(0.0, 0.0, 0.0),
        haze_m=np.inf,
        texture_seed=seed,
    )


def _rgb(levels: npt.NDArray[np.number]) -> tuple[float, float, float]:
    red, green, blue = (float(level) for level in levels)
    return red, green, blue
