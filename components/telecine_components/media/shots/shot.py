"""Shots, and the transitions between them. Pair i is frames i and i + 1."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

NO_DOUBT = -4.0
Kind = Literal["cut", "dissolve", "fade"]


@dataclasses.dataclass(frozen=True, order=True)
class Transition:
    """Frames up to ``first`` show the shot before alone, frames after ``last`` the shot after.

    A hard cut has ``first == last``; a dissolve of n mixed frames covers n + 1 pairs.
    """

    first: int
    last: int
    kind: Kind


class Doubt(NamedTuple):
    """What may be a transition, but was not found likely enough: its first and last frame, and its log odds.

    Those of a gradual one are lowered by :data:`.finder.MIXTURE_DISCOUNT`.
    """

    first: int
    last: int
    log_odds: float


@dataclasses.dataclass(frozen=True)
class Shot:
    """A shot in frames shown, ``end`` exclusive; frames inside a dissolve or fade belong to no shot.

    Attributes:
        begins_with: "start" (of the file), "cut", "dissolve" or "fade".
        ends_with: the same, with "end" for the file's.
        doubts: what may end it nevertheless.
    """

    start: int
    end: int
    begins_with: str
    ends_with: str
    doubts: tuple[Doubt, ...] = ()

    def doubt_within(self, start: int, end: int) -> float:
        """Log odds of the likeliest transition that reaches into a span of the shot; NO_DOUBT is the least.

        ``end`` is exclusive. Half a dissolve spoils a clip too.
        """
        reaching = (each.log_odds for each in self.doubts if each.first < end - 1 and start < each.last)
        return max([NO_DOUBT, *reaching])


def shots_between(transitions: Sequence[Transition], num_frames: int) -> list[Shot]:
    """The shots that transitions, in their order, leave of a film; a film that has none left is one shot."""
    start, begins_with, found = 0, "start", []
    for each in transitions:
        if each.first >= start:
            found.append(Shot(start, each.first + 1, begins_with, each.kind))
        start, begins_with = max(start, each.last + 1), each.kind
    if start < num_frames:
        found.append(Shot(start, num_frames, begins_with, "end"))
    return found or [Shot(0, num_frames, "start", "end")]
