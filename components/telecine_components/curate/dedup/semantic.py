"""Clips that look the same to an embedding: cosine above 1 - epsilon, within clusters (SemDeDup, arXiv 2303.09540)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from telecine_components.media.clusters import clusters

CLIPS_PER_CLUSTER = 2000
BLOCK_CLIPS = 512

Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def semantic(
    vectors: Vectors, shots: Sequence[str], *, epsilon: float, seed: int, num_threads: int, begin: int = 0
) -> Places:
    """For each clip the kept one that looks most like it, or itself where it is kept.

    Clips are looked at in order, within their cluster: give the best first. Up to CLIPS_PER_CLUSTER clips are one
    cluster, so all pairs are looked at.

    Args:
        vectors: [N, D], of length 1.
        shots: clips of one shot resemble each other, and are moments of their own.
        begin: clips before it stay, and are only compared with.
    """
    keepers = np.arange(len(vectors))
    shot_numbers = np.unique(np.array(shots, np.str_), return_inverse=True)[1]
    num_clusters = -(-len(vectors) // CLIPS_PER_CLUSTER)
    labels = clusters(vectors, num_clusters, seed=seed, num_threads=num_threads)
    for label in range(num_clusters):
        members = np.flatnonzero(labels == label)
        keepers[members] = members[
            _within(vectors[members], shot_numbers[members], epsilon, int(np.searchsorted(members, begin)))
        ]
    return keepers


def _within(vectors: Vectors, shots: Places, epsilon: float, first: int) -> Places:
    keepers = np.arange(len(vectors))
    for begin in range(first, len(vectors), BLOCK_CLIPS):
        block = slice(begin, begin + BLOCK_CLIPS)
        cosines = vectors[block] @ vectors[: block.stop].T
        cosines[shots[block, None] == shots[None, : block.stop]] = -1
        cosines[:, keepers[: block.stop] != np.arange(cosines.shape[1])] = -1
        for clip, row in enumerate(cosines, start=begin):
            best = int(row[:clip].argmax()) if clip else 0
            if clip and row[best] > 1 - epsilon:
                keepers[clip] = best
                cosines[:, clip] = -1
    return keepers
