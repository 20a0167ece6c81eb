"""From a scene to pixels: anti-aliased shapes with a soft shadow, on a textured backdrop that the camera pans over."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.plan import Defect
from telecine_models.backlot.scene import COLOURS, DIRECTIONS, Backdrop, Group, Scene, Shape, Stage, Texture

Floats = npt.NDArray[np.float32]
Plane = npt.NDArray[np.float64]
Frames = npt.NDArray[np.uint8]

_GRAIN_LEVELS = 4.0
BLUR_RATIO = 0.03
"""Standard deviation of a blurry shot's blur, as a share of the shorter side."""
OVEREXPOSED, UNDEREXPOSED = (1.4, 120.0), 0.12
"""Gain and lift of an overexposed shot, gain of an underexposed one."""


def render(scene: Scene, defect: Defect | None = None) -> Frames:
    """Draw every frame of a scene: uint8 [frames, height, width, 3]."""
    stage = scene.stage
    frames = np.empty((scene.num_frames, stage.height_px, stage.width_px, 3), np.uint8)
    views = _backdrop_views(scene.backdrop, stage, scene.num_frames)
    spoil = _SPOIL.get(defect) if defect else None
    for index in range(scene.num_frames):
        canvas = views(index)
        for group in scene.groups:
            for center in group.centers_px[:, index]:
                _draw_object(canvas, group, float(center[0]), float(center[1]))
        if spoil is not None:
            canvas = spoil(canvas)
        frames[index] = np.clip(canvas, 0, 255, out=canvas)
    return frames


def _backdrop_views(backdrop: Backdrop, stage: Stage, num_frames: int) -> Callable[[int], Floats]:
    """A function from the frame's index to a fresh canvas [height, width, 3] showing the backdrop."""
    height, width = stage.height_px, stage.width_px
    dx, dy = DIRECTIONS[backdrop.pan] if backdrop.pan else (0, 0)
    step = backdrop.pan_px_per_s / stage.fps
    reach = int(np.ceil(step * num_frames)) + 1
    wide = _paint(backdrop, stage, height + abs(dy) * reach, width + abs(dx) * reach)

    def view(index: int) -> Floats:
        # A camera that pans left or up starts at the far end of what was painted.
        moved = step * index if dx + dy > 0 else step * (num_frames - index)
        whole, part = int(moved), np.float32(moved % 1)
        x, y = abs(dx) * whole, abs(dy) * whole
        near = wide[y : y + height, x : x + width]
        if part == 0:
            return near.copy()
        x, y = x + abs(dx), y + abs(dy)
        far = wide[y : y + height, x : x + width]
        blended: Floats = near + part * (far - near)
        return blended

    return view


def _paint(backdrop: Backdrop, stage: Stage, height: int, width: int) -> Floats:
    rng = np.random.default_rng(backdrop.texture_seed)
    colour = muted(backdrop.colour)
    shades = tone(rng, backdrop.texture, height, width, float(stage.side_px))
    grain = rng.normal(0, _GRAIN_LEVELS, size=(height, width))
    return (colour * (1 + shades[..., None]) + grain[..., None]).astype(np.float32)


def muted(colour: str) -> Plane:
    """RGB levels of a colour as a backdrop has it: greyed and darkened, so that the bright objects stand out."""
    levels: Plane = 0.62 * np.array(COLOURS[colour]) + 0.2 * np.array((110, 115, 125))
    return levels


def tone(rng: np.random.Generator, texture: Texture, height: int, width: int, side: float) -> Plane:
    """How much brighter [height, width] a texture makes its colour; its features are some sixths of ``side`` large."""
    y, x = np.mgrid[:height, :width]
    shades: Plane = np.zeros((height, width))
    if texture == "gradient":
        shades = 0.75 * (0.5 - y / height)
    elif texture == "checkered":
        shades = 0.3 * _edge(np.sin(x * np.pi * 7 / side)) * _edge(np.sin(y * np.pi * 7 / side))
    elif texture == "striped":
        shades = 0.3 * _edge(np.sin((x + rng.choice((-1, 1)) * y) * np.pi * 6 / side))
    elif texture == "cloudy":
        shades = 0.6 * (_clouds(rng, height, width, side / 3) + 0.5 * _clouds(rng, height, width, side / 8)) - 0.45
    return shades


def _edge(wave: Plane) -> Plane:
    """A wave made square: -0.5 or 0.5 but for steep slopes between, which keep its edges smooth."""
    return np.clip(wave * 6, -1, 1) * 0.5


def _clouds(rng: np.random.Generator, height: int, width: int, cell_px: float) -> Plane:
    """Smooth noise in 0..1: random values on a coarse grid, interpolated."""
    rows, columns = int(height / cell_px) + 2, int(width / cell_px) + 2
    grid = rng.uniform(size=(rows, columns))
    down = np.stack([_between(column, height, cell_px) for column in grid.T], axis=1)
    return np.stack([_between(row, width, cell_px) for row in down])


def _between(values: Plane, length: int, cell_px: float) -> Plane:
    """Values at every pixel of a line whose values at every ``cell_px`` are given."""
    index, share = np.divmod(np.arange(length) / cell_px, 1)
    left = index.astype(int)
    share = share * share * (3 - 2 * share)
    between: Plane = values[left] * (1 - share) + values[left + 1] * share
    return between


def _draw_object(canvas: Floats, group: Group, x: float, y: float) -> None:
    """Blend one object and its shadow into ``canvas``, touching only the pixels around it."""
    radius = group.radius_px
    drop = 0.22 * radius
    reach = int(np.ceil(radius + drop + 2))
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    patch = canvas[top : int(y) + reach + 1, left : int(x) + reach + 1]
    # Pixel i covers i..i+1, so its centre is half a pixel further.
    dy = (np.arange(patch.shape[0], dtype=np.float32) + np.float32(top + 0.5 - y))[:, None]
    dx = (np.arange(patch.shape[1], dtype=np.float32) + np.float32(left + 0.5 - x))[None, :]
    shade = np.clip(0.5 - signed_distance(group.shape, dx - drop, dy - drop, radius) / max(drop, 1.0), 0, 1)
    patch *= (1 - np.float32(0.35) * shade)[..., None]
    distance = signed_distance(group.shape, dx, dy, radius)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    colour = lit(distance, dx, dy, radius)[..., None] * np.array(COLOURS[group.colour], np.float32)
    patch += cover * (colour - patch)


def lit(distance: Floats, dx: Floats, dy: Floats, radius: float) -> Floats:
    """Light from the upper left, and a darker rim; the centre has the named colour exactly."""
    light = 1 - np.float32(0.14 / radius) * (dx + dy)
    rim = 1 - np.float32(0.3) * np.clip(distance / np.float32(0.12 * radius) + 1, 0, 1)
    shine: Floats = light * rim
    return shine


def signed_distance(shape: Shape, dx: Floats, dy: Floats, radius: float) -> Floats:
    """Distance to the outline in the unit of the others, negative inside; all shapes fit the circle of ``radius``."""
    if shape == "circle":
        return np.hypot(dx, dy) - np.float32(radius)
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - np.float32(radius * 0.5**0.5)
    slope = np.float32(0.75**0.5)
    return np.maximum(slope * np.abs(dx) - dy / 2, dy) - np.float32(radius / 2)


def blur(canvas: Floats, sigma_px: float) -> Floats:
    """Gaussian blur of [..., height, width, 3]; the edge's colours go on outside."""
    reach = int(np.ceil(2.5 * sigma_px))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2).astype(np.float32)
    taps /= taps.sum()
    for axis in (-3, -2):
        padding = [(0, 0)] * canvas.ndim
        padding[axis] = (reach, reach)
        padded = np.moveaxis(np.pad(canvas, padding, mode="edge"), axis, 0)
        length = canvas.shape[axis]
        canvas = np.zeros_like(canvas)
        view = np.moveaxis(canvas, axis, 0)
        for offset, tap in enumerate(taps):
            view += tap * padded[offset : offset + length]
    return canvas


def expose(canvas: Floats, gain: float, lift: float = 0.0) -> Floats:
    """Levels multiplied, then raised, as a wrong exposure does; not yet cut off at white."""
    exposed: Floats = canvas * np.float32(gain) + np.float32(lift)
    return exposed


_SPOIL: dict[Defect, Callable[[Floats], Floats]] = {
    "blurry": lambda canvas: blur(canvas, BLUR_RATIO * min(canvas.shape[:2])),
    "overexposed": lambda canvas: expose(canvas, *OVEREXPOSED),
    "underexposed": lambda canvas: expose(canvas, UNDEREXPOSED),
}
