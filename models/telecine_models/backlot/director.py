"""A whole film: its shots planned, drawn and joined, and the truth about them."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.draw import render
from telecine_models.backlot.plan import Span, plan_film
from telecine_models.backlot.scene import COLOURS, Group, Scene, Stage, compose

_MIN_SIDE_PX = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """Frames, uint8 [frames, height, width, 3], and the truth about them as plain JSON values."""

    frames: npt.NDArray[np.uint8]
    truth: dict[str, Any]


def film(seed: int, *, num_frames: int, fps: int, width_px: int, height_px: int) -> Film:
    """Draw the film that belongs to ``seed``; the same arguments give the same bytes.

    ``truth["shots"]`` tile the film. Each says where it starts and ends, how it begins (``transition``: none, cut,
    dissolve, fade) and in which ``blend_frames`` it is mixed with the shot before, its ``caption``, ``camera``,
    ``background`` and ``objects`` (with the centre of each in each of the shot's frames), and its ``defects``
    (blurry, overexposed, underexposed, frozen, short).

    Raises:
        ValueError: a negative seed, no frames, no rate, or a side shorter than 16 pixels.
    """
    _check(seed, num_frames, fps, width_px, height_px)
    stage = Stage(width_px=width_px, height_px=height_px, fps=fps)
    spans = plan_film(np.random.default_rng(seed), num_frames, fps)
    frames = np.zeros((num_frames, height_px, width_px, 3), np.uint8)
    shots: list[dict[str, Any]] = []
    for index, span in enumerate(spans):
        # A shot is already seen while it is mixed in, and still seen while the next one is.
        first = span.blend_start_frame
        last = spans[index + 1].blend_end_frame if index + 1 < len(spans) else num_frames
        rng = np.random.default_rng((seed, index))
        unlike = shots[-1]["background"]["colour"] if shots else None
        scene = compose(rng, stage, last - first, moving=span.defect != "frozen", unlike=unlike)
        _splice(frames, render(scene, span.defect), span)
        shots.append(_shot_truth(scene, span, stage.fps))
    truth = {
        "seed": seed,
        "fps": fps,
        "width": width_px,
        "height": height_px,
        "num_frames": num_frames,
        "licence": "CC0-1.0",
        "consent": "synthetic",
        "shots": shots,
    }
    return Film(frames, truth)


def _splice(frames: npt.NDArray[np.uint8], shot: npt.NDArray[np.uint8], span: Span) -> None:
    """Put a shot in its place, mixing it with what the shot before left in the frames of the transition."""
    first, blend = span.blend_start_frame, span.blend_end_frame - span.blend_start_frame
    frames[first + blend : first + len(shot)] = shot[blend:]
    weights = (np.arange(1, blend + 1, dtype=np.float32) / (blend + 1))[:, None, None, None]
    old, new = 1 - weights, weights
    if span.transition == "fade":
        old, new = np.maximum(1 - 2 * weights, 0), np.maximum(2 * weights - 1, 0)
    mixed = old * frames[first : first + blend] + new * shot[:blend]
    frames[first : first + blend] = np.rint(mixed).astype(np.uint8)


def _shot_truth(scene: Scene, span: Span, fps: int) -> dict[str, Any]:
    seen = slice(span.start_frame - span.blend_start_frame, span.end_frame - span.blend_start_frame)
    return {
        "start_s": span.start_frame / fps,
        "end_s": span.end_frame / fps,
        "start_frame": span.start_frame,
        "end_frame": span.end_frame,
        "transition": span.transition,
        "blend_frames": [span.blend_start_frame, span.blend_end_frame],
        "caption": scene.caption,
        "camera": {"pan": scene.backdrop.pan, "speed_px_per_s": round(scene.backdrop.pan_px_per_s, 3)},
        "background": {"colour": scene.backdrop.colour, "texture": scene.backdrop.texture},
        "objects": [_group_truth(group, seen) for group in scene.groups],
        "defects": [] if span.defect is None else [span.defect],
    }


def _group_truth(group: Group, seen: slice) -> dict[str, Any]:
    return {
        "shape": group.shape,
        "colour": group.colour,
        "rgb": list(COLOURS[group.colour]),
        "size": group.size,
        "count": group.count,
        "radius_px": round(group.radius_px, 3),
        "motion": group.motion,
        "speed_px_per_s": round(group.speed_px_per_s, 3),
        "centers_px": np.round(group.centers_px[:, seen], 2).tolist(),
    }


def _check(seed: int, num_frames: int, fps: int, width_px: int, height_px: int) -> None:
    least = {
        "seed": (seed, 0),
        "num_frames": (num_frames, 1),
        "fps": (fps, 1),
        "width_px": (width_px, _MIN_SIDE_PX),
        "height_px": (height_px, _MIN_SIDE_PX),
    }
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise ValueError(f"film: {name} must be at least {minimum}, got {value}")
