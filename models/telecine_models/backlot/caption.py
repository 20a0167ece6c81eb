"""Backlot's captions read back: the grammar that :class:`telecine_models.backlot.scene.Scene` writes, and no other."""

import dataclasses
import hashlib
import re
from typing import get_args

import numpy as np

from telecine_models.backlot.scene import COLOURS, DIRECTIONS, SHAPES, TEXTURES, Motion, Stage, compose

SIZES = ("small", "medium", "large")
_NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3}
_MOTIONS: dict[str, Motion] = {"bounce around": "bounce", "stay still": "still"}
_MOTIONS |= {f"move {motion}": motion for motion in get_args(Motion) if motion in DIRECTIONS}
_COLOUR, _DIRECTION = "|".join(COLOURS), "|".join(DIRECTIONS)
_SUBJECT = re.compile(
    # Singular or plural throughout: "a circle moves", "two circles move".
    rf"(?P<number>(?P<one>an?)|two|three) (?:(?P<size>small|large) )?(?P<colour>{_COLOUR}) "
    rf"(?P<shape>{'|'.join(SHAPES)})(?(one)|s) (?P<verb>move|bounce|stay)(?(one)s) (?P<where>{_DIRECTION}|around|still)"
)
_GROUND = re.compile(
    rf"an? (?:(?P<texture>{'|'.join(TEXTURES)}) )?(?P<colour>{_COLOUR}) background"
    rf"(?: while the camera pans (?P<pan>{_DIRECTION}))?"
)
_HELD_OUT_ONE_IN = 4
_DRAW_STAGE = Stage(width_px=64, height_px=64, fps=8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One group of objects as a caption names it; ``size`` is medium where the caption is silent."""

    count: int
    size: str
    colour: str
    shape: str
    motion: Motion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption:
    """What a caption asks for; ``texture`` is plain and ``pan`` None where it is silent."""

    subjects: tuple[Subject, ...]
    background: str
    texture: str
    pan: str | None


def parse(text: str) -> Caption:
    """Read a caption.

    Raises:
        ValueError: the text is no caption of Backlot.
    """
    subjects, _, ground = text.rpartition(" on ")
    found = _GROUND.fullmatch(ground)
    matches = [_SUBJECT.fullmatch(part) for part in subjects.split(" and ")]
    read = [_subject(match) for match in matches if match is not None]
    known = [subject for subject in read if subject is not None]
    if found is None or len(known) != len(matches):
        raise ValueError(
            f"caption: expected Backlot's, like 'two red circles move left on a blue background', got {text!r}"
        )
    return Caption(
        subjects=tuple(known),
        background=found["colour"],
        texture=found["texture"] or "plain",
        pan=found["pan"],
    )


def draw_captions(num: int, *, seed: tuple[int, ...], held_out: bool) -> tuple[str, ...]:
    """``num`` different captions of random scenes, from one of two sets that never meet.

    A caption's hash says to which set it belongs, one in four to the held-out one: whoever draws from either needs to
    know nothing of the other.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < num:
        caption = compose(rng, _DRAW_STAGE, 8, moving=True).caption
        if is_held_out(caption) == held_out:
            drawn[caption] = None
    return tuple(drawn)


def is_held_out(caption: str) -> bool:
    """Whether a caption belongs to the set that no alignment trains on."""
    return hashlib.sha256(caption.encode()).digest()[0] % _HELD_OUT_ONE_IN == 0


def _subject(match: re.Match[str]) -> Subject | None:
    motion = _MOTIONS.get(f"{match['verb']} {match['where']}")
    if motion is None:
        return None
    return Subject(
        count=_NUMBERS[match["number"]],
        size=match["size"] or "medium",
        colour=match["colour"],
        shape=match["shape"],
        motion=motion,
    )
