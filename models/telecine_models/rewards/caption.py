"""Does a film show what its Backlot caption says? Graded parts, so that half right earns half.

Judged are the background's colour, the objects (colour and area) and their motion. Texture, camera, count and shape
are not: at 32 pixels they cannot be read from a noisy sample well enough to be paid for.
"""

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.caption import Subject, parse
from telecine_models.backlot.scan import NAMES, Scan
from telecine_models.backlot.scene import DIRECTIONS

PARTS = ("background", "objects", "motion")
_RADIUS_RATIO = {"small": 0.09, "medium": 0.127, "large": 0.175}
"""Middle of the radii that a size word stands for, in sides of the picture (``scene._draw_group``)."""
_AREA = {"circle": np.pi, "square": 2.0, "triangle": 1.299}
"""Area of a shape of radius one."""
_READ_SHARE = 0.62
"""How much of a drawn object's area the reader finds, in the median over rendered films; the rest is its rim."""
_FULL_SPEED = 0.12
"""Displacement in sides over the film that earns all of the motion's part; slower earns in proportion."""


def caption_reward(caption: str, frames: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Judge frames, uint8 [F, H, W, 3] of any size; the same input gives the same numbers.

    Returns:
        ``background``: of what looks like a backdrop, the share that has the right colour;
        ``objects``: mean over the caption's groups of how close their colour's area is to the expected one, times the
        share of all objects that have a colour of the caption;
        ``motion``: mean over groups of how much of their displacement goes the right way, counted only as far as the
        objects are there;
        ``reward``: the mean of the three.

    Raises:
        ValueError: a caption that is none of Backlot's, or frames of another shape.
    """
    wanted = parse(caption)
    scan = Scan(frames)
    shares = scan.shares()
    aspect = min(scan.size[1:]) / max(scan.size[1:])
    present = {s.colour: _presence(s, float(shares[NAMES.index(s.colour)]), aspect) for s in wanted.subjects}
    asked = sum(float(shares[NAMES.index(colour)]) for colour in present)
    purity = asked / max(float(shares.sum()), 1e-9)
    parts = {
        "background": float(scan.backdrop[NAMES.index(wanted.background)] / max(float(scan.backdrop.sum()), 1e-9)),
        "objects": purity * float(np.mean(list(present.values()))),
        "motion": float(np.mean([_motion(s, scan) * min(1.0, 2 * present[s.colour]) for s in wanted.subjects])),
    }
    return parts | {"reward": float(np.mean([parts[name] for name in PARTS]))}


def _presence(subject: Subject, share: float, aspect: float) -> float:
    """The smaller of found and expected area over the larger: one where they agree, falling on both sides."""
    radius = _RADIUS_RATIO[subject.size]
    expected = _READ_SHARE * subject.count * _AREA[subject.shape] * radius**2 * aspect
    return min(share, expected) / max(share, expected)


def _motion(subject: Subject, scan: Scan) -> float:
    """One for full speed the right way, one half for none, zero for full speed the wrong way."""
    velocity = np.array(scan.velocity(NAMES.index(subject.colour)))
    if subject.motion in DIRECTIONS:
        along = float(velocity @ np.array(DIRECTIONS[subject.motion])) / _FULL_SPEED
        return 0.5 + 0.5 * float(np.clip(along, -1, 1))
    moved = min(1.0, float(np.abs(velocity).max()) / _FULL_SPEED)
    return 1 - moved if subject.motion == "still" else 0.5 + 0.5 * moved
