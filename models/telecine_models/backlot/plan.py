"""Where the shots of a film begin and end, how one turns into the next, and which of them is spoilt."""

import dataclasses
from typing import Literal

import numpy as np

Transition = Literal["none", "cut", "dissolve", "fade"]
Defect = Literal["blurry", "overexposed", "underexposed", "frozen", "short"]

DEFECTS: tuple[Defect, ...] = ("blurry", "overexposed", "underexposed", "frozen", "short")
_DEFECT_RATIO = 0.5
_SHOT_S = (1.8, 3.0)
_SHORT_SHOT_S = 0.3
_TRANSITION_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One shot in frames of the film; ends are exclusive, and the spans of a film tile it.

    Attributes:
        start_frame, end_frame: the frames in which this shot is at least half of the picture.
        transition: how the shot begins; the first shot of a film has none.
        blend_start_frame, blend_end_frame: the frames in which it is mixed with the shot before; empty for a cut.
        defect: what is wrong with the shot, if anything.
    """

    start_frame: int
    end_frame: int
    transition: Transition
    blend_start_frame: int
    blend_end_frame: int
    defect: Defect | None


def plan_film(rng: np.random.Generator, num_frames: int, fps: int) -> list[Span]:
    """Draw the spans of one film. About half of the films have one spoilt shot."""
    lengths = _draw_lengths(rng, num_frames, fps)
    spoilt, defect = _draw_defect(rng, len(lengths))
    if defect == "short":
        lengths = _shorten(lengths, spoilt, max(1, round(_SHORT_SHOT_S * fps)))
    starts = [int(start) for start in np.cumsum([0, *lengths])]
    spans = []
    for index, length in enumerate(lengths):
        shorter = min(lengths[index - 1], length) if index else 0
        transition, blend_frames = _draw_transition(rng, shorter, fps) if index else ("none", 0)
        blend_start = starts[index] - blend_frames // 2
        span = Span(
            start_frame=starts[index],
            end_frame=starts[index + 1],
            transition=transition,
            blend_start_frame=blend_start,
            blend_end_frame=blend_start + blend_frames,
            defect=defect if index == spoilt else None,
        )
        spans.append(span)
    return spans


def _draw_lengths(rng: np.random.Generator, num_frames: int, fps: int) -> list[int]:
    num_shots = max(1, round(num_frames / fps / rng.uniform(*_SHOT_S)))
    shares = rng.uniform(1.0, 1.6, size=num_shots)
    ends = np.rint(np.cumsum(shares) / shares.sum() * num_frames).astype(int)
    return [int(length) for length in np.diff(ends, prepend=0)]


def _draw_defect(rng: np.random.Generator, num_shots: int) -> tuple[int, Defect | None]:
    spoilt = int(rng.integers(num_shots))
    if rng.uniform() >= _DEFECT_RATIO:
        return spoilt, None
    # A film of one shot cannot have a shot that is short beside the others.
    kinds = DEFECTS if num_shots > 1 else DEFECTS[:-1]
    return spoilt, kinds[rng.integers(len(kinds))]


def _shorten(lengths: list[int], index: int, length: int) -> list[int]:
    """Cut one shot down and give its frames to a neighbour."""
    length = min(length, lengths[index])
    neighbour = index - 1 if index else 1
    changed = list(lengths)
    changed[neighbour] += lengths[index] - length
    changed[index] = length
    return changed


def _draw_transition(rng: np.random.Generator, shorter_shot: int, fps: int) -> tuple[Transition, int]:
    kind: Transition = ("cut", "dissolve", "fade")[rng.choice(3, p=(0.7, 0.15, 0.15))]
    blend_frames = round(_TRANSITION_S * fps)
    if kind == "cut" or blend_frames < 2 or shorter_shot < 3 * blend_frames:
        return "cut", 0
    return kind, blend_frames
