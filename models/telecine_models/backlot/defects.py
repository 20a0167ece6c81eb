"""What spoils footage, in several kinds and any degree: the same seed and a higher severity give a worse picture."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import BLUR_RATIO, OVEREXPOSED, UNDEREXPOSED, blur, expose

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
GradedDefect = Literal[
    "blur", "noise", "overexposure", "underexposure", "logo", "text", "freeze", "blockiness", "shake"
]

GRADED_DEFECTS: tuple[GradedDefect, ...] = get_args(GradedDefect)
_LEAST_BLUR_PX = 0.3
_NOISE_LEVELS = 60.0
_SHAKE_RATIO = 0.08
_LOGO_RATIO = 0.34
# Letters of three by five dots, a row in three bits.
_LETTERS = {
    "D": (6, 5, 5, 5, 6),
    "E": (7, 4, 6, 4, 7),
    "L": (4, 4, 4, 4, 7),
    "M": (5, 7, 7, 5, 5),
    "O": (7, 5, 5, 5, 7),
    "P": (7, 5, 7, 4, 4),
    "R": (6, 5, 6, 5, 5),
    "S": (7, 4, 7, 1, 7),
}
_WORDS = ("DEMO", "SOLD", "MODEL", "SPEED")


def spoil(frames: Frames, kind: GradedDefect, severity: float, seed: int) -> Frames:
    """Spoil a film, uint8 [F, H, W, 3]; the frames given stay as they are.

    Args:
        severity: in (0, 1]; 1 is what anyone would throw away.
        seed: of where, when and how; the severity only says how much.

    Raises:
        ValueError: a severity outside (0, 1], or a kind that there is not.
    """
    if not 0 < severity <= 1:
        raise ValueError(f"spoil: severity must lie in (0, 1], got {severity}")
    if kind not in _SPOILERS:
        raise ValueError(f"spoil: kind must be one of {GRADED_DEFECTS}, got {kind!r}")
    return _SPOILERS[kind](frames, severity, np.random.default_rng((seed, GRADED_DEFECTS.index(kind))))


def _blur(frames: Frames, severity: float, _: np.random.Generator) -> Frames:
    # Anything less would be no blur at all in a small picture.
    sigma = _LEAST_BLUR_PX + BLUR_RATIO * severity * min(frames.shape[1:3])
    return _levels(blur(frames.astype(np.float32), sigma))


def _noise(frames: Frames, severity: float, rng: np.random.Generator) -> Frames:
    grain = rng.standard_normal(frames.shape, np.float32)
    return _levels(frames + np.float32(_NOISE_LEVELS * severity) * grain)


def _overexpose(frames: Frames, severity: float, _: np.random.Generator) -> Frames:
    gain, lift = OVEREXPOSED
    return _levels(expose(frames.astype(np.float32), 1 + (gain - 1) * severity, lift * severity))


def _underexpose(frames: Frames, severity: float, _: np.random.Generator) -> Frames:
    return _levels(expose(frames.astype(np.float32), 1 - (1 - UNDEREXPOSED) * severity))


def _logo(frames: Frames, severity: float, rng: np.random.Generator) -> Frames:
    """A ring with a dot in one corner, the larger and the more opaque the worse."""
    height, width = frames.shape[1:3]
    side = max(5, round(_LOGO_RATIO * (0.4 + 0.6 * severity) * min(height, width)))
    place = (np.arange(side) + 0.5) / side * 2 - 1
    radius = np.hypot(place[:, None], place[None, :])
    marked = ((radius < 0.95) & (radius > 0.6)) | (radius < 0.3)
    return _stamp(frames, marked, _corner(rng, height - side, width - side), 0.4 + 0.6 * severity)


def _text(frames: Frames, severity: float, rng: np.random.Generator) -> Frames:
    """A word across the lower part, the larger and the more opaque the worse."""
    height, width = frames.shape[1:3]
    word = _WORDS[rng.integers(len(_WORDS))]
    dots = np.concatenate([_glyph(letter) for letter in word], axis=1)[:, :-1]
    size = max(1, round((0.3 + 0.6 * severity) * min(width / dots.shape[1], height / 2 / dots.shape[0])))
    marked = np.kron(dots, np.ones((size, size), np.bool_))[:height, :width]
    top = max(0, height - marked.shape[0] - height // 12)
    return _stamp(frames, marked, (top, (width - marked.shape[1]) // 2), 0.4 + 0.6 * severity)


def _freeze(frames: Frames, severity: float, rng: np.random.Generator) -> Frames:
    """A frame that stands still for that share of the film, while what it replaces is lost."""
    num_frames = len(frames)
    begin = int(rng.uniform() * max(1, num_frames // 4))
    length = max(2, round(severity * num_frames))
    # A longer stop begins no later than a shorter one, and so holds all of it.
    begin = min(begin, max(0, num_frames - length))
    spoilt = frames.copy()
    spoilt[begin : begin + length] = frames[begin]
    return spoilt


def _block(frames: Frames, severity: float, _: np.random.Generator) -> Frames:
    """Squares of an eighth of the shorter side lose what makes them differ within, as coarse quantisation does."""
    height, width = frames.shape[1:3]
    side = max(2, min(height, width) // 8)
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(frames.astype(np.float32), rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff(rows, append=height), np.diff(columns, append=width)).astype(np.float32)
    means = (sums / sizes[..., None]).repeat(side, axis=1)[:, :height].repeat(side, axis=2)[:, :, :width]
    return _levels(frames + np.float32(severity) * (means - frames))


def _shake(frames: Frames, severity: float, rng: np.random.Generator) -> Frames:
    """Every frame is shifted by itself; the edge's colours go on outside."""
    num, height, width, _ = frames.shape
    reach = severity * _SHAKE_RATIO * min(height, width)
    shifts = np.rint(reach * rng.uniform(-1, 1, size=(num, 2))).astype(int)
    # At the least a pixel, or else it would not be a shake.
    shifts[1::2, 1] += (shifts == 0).all()
    spoilt = np.empty_like(frames)
    for index, (down, right) in enumerate(shifts):
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        spoilt[index] = frames[index][rows[:, None], columns]
    return spoilt


def _stamp(frames: Frames, marked: npt.NDArray[np.bool_], place: tuple[int, int], opacity: float) -> Frames:
    """Blend white, with a dark edge to the right and below, into every frame."""
    spoilt = frames.copy()
    rows, columns = marked.shape
    for level, offset in ((20.0, 1), (250.0, 0)):
        top, left = place[0] + offset, place[1] + offset
        patch = spoilt[:, top : top + rows, left : left + columns]
        cover = np.float32(opacity) * marked[: patch.shape[1], : patch.shape[2], None].astype(np.float32)
        patch[:] = _levels(patch + cover * (np.float32(level) - patch))
    return spoilt


def _corner(rng: np.random.Generator, room_down: int, room_right: int) -> tuple[int, int]:
    gap_down, gap_right = room_down // 16, room_right // 16
    at_bottom, at_right = rng.integers(2), rng.integers(2)
    return int(room_down - gap_down if at_bottom else gap_down), int(room_right - gap_right if at_right else gap_right)


def _glyph(letter: str) -> npt.NDArray[np.bool_]:
    """Dots of a letter and a gap to the next one, [5, 4]."""
    return np.array([[row >> bit & 1 for bit in (2, 1, 0)] + [0] for row in _LETTERS[letter]], np.bool_)


def _levels(values: npt.NDArray[Any]) -> Frames:
    levels: Frames = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


_SPOILERS: dict[str, Callable[[Frames, float, np.random.Generator], Frames]] = {
    "blur": _blur,
    "noise": _noise,
    "overexposure": _overexpose,
    "underexposure": _underexpose,
    "logo": _logo,
    "text": _text,
    "freeze": _freeze,
    "blockiness": _block,
    "shake": _shake,
}
