"""Our shot detector: looks at glances, and says at the end where the shots are."""

import dataclasses

import numpy as np
import numpy.typing as npt

from telecine_components.media.glance import Glance
from telecine_components.media.shots.shot import Shot, Transition, shots_between

SIDE_PAIRS = 4


@dataclasses.dataclass(frozen=True)
class Rule:
    """What counts as a transition.

    Attributes:
        cut_distance: grey levels by which the pictures of a cut differ at least.
        cut_ratio: how many times that exceeds the distances around it.
    """

    cut_distance: float = 12.0
    cut_ratio: float = 3.0


class ShotFinder:
    """Looks at a film's glances in the order shown."""

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule or Rule()
        self._indices: list[int] = []
        self._lumas: list[npt.NDArray[np.uint8]] = []

    def look_at(self, glance: Glance) -> None:
        """Take in one more frame."""
        self._indices.append(glance.index)
        self._lumas.append(glance.luma)

    def shots(self) -> list[Shot]:
        """The shots of all that was seen, in their order."""
        if len(self._lumas) == 1:
            return shots_between([], self._indices[-1] + 1)
        lumas = np.stack(self._lumas).astype(np.int16)
        distances = np.abs(lumas[1:] - lumas[:-1]).mean(axis=(1, 2))
        padded = np.pad(distances, SIDE_PAIRS, constant_values=0)
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * SIDE_PAIRS + 1)
        rest = (around.sum(axis=1) - distances) / (2 * SIDE_PAIRS)
        cuts = (distances > self._rule.cut_distance) & (distances > self._rule.cut_ratio * rest)
        places = [self._indices[position] for position in np.flatnonzero(cuts)]
        return shots_between([Transition(place, place, "cut") for place in places], self._indices[-1] + 1)
