"""Which clips repeat a better one: the same frames first, then copies, then what looks the same."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.curate.dedup.perceptual import perceptual
from telecine_components.curate.dedup.semantic import semantic
from telecine_components.curate.dedup.spec import Inputs

Row = Mapping[str, Any]
Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def best_first(row: Row) -> tuple[Any, ...]:
    """Sort key of the clip to keep: more pixels, then more coded bits per pixel, then longer, then by id."""
    length_s = row["end_s"] - row["start_s"]
    return -row["width_px"] * row["height_px"], -(row["bits_per_pixel"] or 0.0), -length_s, row["clip_id"]


def duplicates(
    rows: Sequence[Row], descriptors: Vectors, looks: Vectors, inputs: Inputs, *, num_earlier: int = 0
) -> dict[int, tuple[str, int]]:
    """By the place of each duplicate: its reason and the place of the clip that is kept instead.

    What is kept does not depend on the order of the rows, but where two have one clip_id.

    Args:
        descriptors: of the rows [N, D], by which copies are checked.
        looks: vectors of the rows [N, D'] of length 1, by which clips look the same.
        num_earlier: the first so many rows are taken already: they stay, and any later clip that repeats one goes.
    """
    if len(rows) < 2:
        return {}
    order = sorted(range(len(rows)), key=lambda place: (place >= num_earlier, best_first(rows[place])))
    places = np.array(order, np.int64)
    found: dict[int, tuple[str, int]] = {}

    def mark(reason: str, find: Callable[[Places], Places]) -> None:
        nonlocal places
        keepers = places[find(places)]
        for place, keeper in zip(places.tolist(), keepers.tolist(), strict=True):
            if place != keeper:
                found[place] = reason, keeper
        places = places[places == keepers]

    def shots(of: Places) -> list[str]:
        # One that comes again, in other clips, is another shot than it was.
        return [f"{place < num_earlier} {rows[place]['shot_id']}" for place in of]

    mark("duplicate_exact", lambda of: exact([rows[place] for place in of], descriptors[of], begin=num_earlier))
    if inputs.max_bits:
        prints = [row["fingerprint"] for row in rows]
        bits = inputs.max_bits
        mark(
            "duplicate_perceptual",
            lambda of: perceptual(
                [prints[place] for place in of], descriptors[of], shots(of), max_bits=bits, begin=num_earlier
            ),
        )
    if inputs.epsilon:
        epsilon, seed, num_threads = inputs.epsilon, inputs.seed, inputs.num_threads
        mark(
            "duplicate_semantic",
            lambda of: semantic(
                looks[of], shots(of), epsilon=epsilon, seed=seed, num_threads=num_threads, begin=num_earlier
            ),
        )
    return {place: (reason, _kept(place, found)) for place, (reason, _) in found.items()}


def exact(rows: Sequence[Row], descriptors: Vectors, *, begin: int = 0) -> Places:
    """For each clip the first one with the same number of frames, fingerprint and descriptor, so often itself.

    Clips before ``begin`` stay. A descriptor holds 177 measures of several frames in six digits: what agrees in all of
    them is the same picture.
    """
    firsts: dict[Any, int] = {}
    keys = (
        (row["num_frames"], row["fingerprint"], vector.tobytes()) for row, vector in zip(rows, descriptors, strict=True)
    )
    found = np.array([firsts.setdefault(key, place) for place, key in enumerate(keys)], np.int64)
    return np.where(np.arange(len(found)) < begin, np.arange(len(found)), found)


def _kept(place: int, found: Mapping[int, tuple[str, int]]) -> int:
    """The clip that stands for it in the end: the one it repeats may itself repeat another."""
    while place in found:
        place = found[place][1]
    return place
