"""How right detections of transitions are, judged by one rule for every detector.

A detector names one pair of frames a transition: the pair of a cut, the middle of a dissolve, the lowest score of a run
(Koala-36M). It is right if it lies in the transition's pairs, or within ``tolerance`` of them, and is the first to do
so: one detection a transition, further ones are false. A detection in the fade at the beginning or the end of a film is
neither right nor wrong.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shot_corpus import Film


@dataclasses.dataclass(frozen=True)
class Score:
    """Counts, which add up over films."""

    right: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.right + other.right, self.false + other.false, self.missed + other.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing was found."""
        wrong = self.false + self.missed
        return 2 * self.right / (2 * self.right + wrong) if self.right + wrong else 1.0


def judged(film: Film, pairs: Iterable[int], tolerance: int) -> tuple[dict[int, int], list[int]]:
    """Which detection hit which transition (by its number), and the false ones."""
    hits: dict[int, int] = {}
    false = []
    for pair in sorted(pairs):
        near = [
            number
            for number, truth in enumerate(film.truths)
            if truth.first - tolerance <= pair <= truth.last + tolerance and number not in hits
        ]
        if near:
            hits[near[0]] = pair
        elif not any(first - tolerance <= pair <= last + tolerance for first, last in film.ignored):
            false.append(pair)
    return hits, false


def score(films: Sequence[Film], found: Mapping[str, Iterable[int]], tolerance: int) -> Score:
    """The score over films of what was found in each, by name."""
    total = Score()
    for film in films:
        hits, false = judged(film, found[film.name], tolerance)
        total += Score(len(hits), len(false), len(film.truths) - len(hits))
    return total


def recall(films: Sequence[Film], found: Mapping[str, Iterable[int]], tolerance: int, kind: str) -> tuple[int, int]:
    """How many transitions of a kind were found, and how many there are."""
    right = total = 0
    for film in films:
        hits, _ = judged(film, found[film.name], tolerance)
        wanted = {number for number, truth in enumerate(film.truths) if truth.kind == kind}
        right, total = right + len(wanted & hits.keys()), total + len(wanted)
    return right, total


def cuts_alone(films: Sequence[Film], found: Mapping[str, Iterable[int]], tolerance: int) -> Score:
    """The score for hard cuts: what hits a dissolve or fade counts neither way."""
    total = Score()
    for film in films:
        hits, false = judged(film, found[film.name], tolerance)
        hard = {number for number, truth in enumerate(film.truths) if truth.kind in ("cut", "similar")}
        gradual = [truth for truth in film.truths if truth.kind not in ("cut", "similar")]
        kept = [pair for pair in false if not any(t.first - tolerance <= pair <= t.last + tolerance for t in gradual)]
        total += Score(len(hard & hits.keys()), len(kept), len(hard - hits.keys()))
    return total


def summary(films: Sequence[Film], found: Mapping[str, Iterable[int]], tolerance: int) -> dict[str, Any]:
    """F1 overall, on hard cuts alone and on real clips alone, with counts, and recall per kind."""
    real = [film for film in films if film.cast in ("natural", "real")]
    groups = {
        "all": score(films, found, tolerance),
        "hard cuts": cuts_alone(films, found, tolerance),
        "real clips": score(real, found, tolerance),
        "natural clips": score([film for film in films if film.cast == "natural"], found, tolerance),
    }
    cells: dict[str, Any] = {
        name: f"{each.f1:.3f} ({each.right}/{each.false}/{each.missed})" for name, each in groups.items()
    }
    for kind in ("cut", "similar", "dissolve", "fade"):
        right, total = recall(films, found, tolerance, kind)
        cells[kind] = f"{right}/{total}"
    return cells
