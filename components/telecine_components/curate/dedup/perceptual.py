"""Copies: clips of which the shorter is found, frame by frame, in the other, as it is or in a mirror.

Frames are looked up by parts of their hash (multi-index hashing: Norouzi et al., arXiv 1307.2982), so that the cost
grows with the number of clips and not with that of their pairs; each pair that comes up is then compared in full.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from telecine_components.media import descriptor, fingerprint
from telecine_components.media.fingerprint import HASH_BYTES, NUM_WORDS, WORD_BITS

MIN_SHARED_RATIO = 0.5
"""Share of the shorter clip's frames that the other one has to have."""
MIN_RESEMBLANCE = 0.75
"""Of the descriptors: two plain pictures with the same shadows have one hash, and differ in colour or detail."""
MAX_CLIPS_PER_HASH = 200
"""A frame that more clips show (a title, a test card) says nothing of the rest of the clip, and is not looked up."""
BLOCK_CLIPS = 2048
FLIPPED_BITS = 1
"""Bits by which one word of two hashes may differ for them to be compared; any 5 bits of 64 are found for sure."""

Hashes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Sequences:
    """The frames of all clips that show something, one clip after the other.

    Attributes:
        hashes: uint8 [M, 8].
        clips: the clip of each frame [M], ascending.
        starts: where each clip begins [N + 1].
    """

    hashes: Hashes
    clips: Places
    starts: Places

    @classmethod
    def of(cls, fingerprints: Sequence[bytes]) -> "Sequences":
        """Without blank frames."""
        lengths = np.array([len(one) // HASH_BYTES for one in fingerprints])
        hashes = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, HASH_BYTES)
        shown = hashes.any(axis=1)
        clips = np.repeat(np.arange(len(lengths)), lengths)[shown]
        return cls(hashes[shown], clips, np.searchsorted(clips, np.arange(len(lengths) + 1)))


def perceptual(
    fingerprints: Sequence[bytes], descriptors: Vectors, shots: Sequence[str], *, max_bits: int, begin: int = 0
) -> Places:
    """For each clip the kept one that it copies, or itself where it is kept.

    Clips are looked at in order, so a copy comes after what it is compared with: give the best first.

    Args:
        descriptors: [N, D], of length 1.
        shots: clips of one shot resemble each other and are not copies.
        begin: clips before it stay, and are only compared with.
    """
    keepers = np.arange(len(fingerprints))
    frames = Sequences.of(fingerprints)
    shot_numbers = np.unique(np.array(shots, np.str_), return_inverse=True)[1]
    for clip, others in _candidates(frames, max_bits, begin):
        others = others[(keepers[others] == others) & (shot_numbers[others] != shot_numbers[clip])]
        if len(others):
            shared = _shared(frames, descriptors, clip, others, max_bits)
            best = int(shared.argmax())
            keepers[clip] = others[best] if shared[best] >= MIN_SHARED_RATIO else clip
    return keepers


def _candidates(frames: Sequences, max_bits: int, begin: int) -> Iterator[tuple[int, Places]]:
    """Each clip from ``begin`` on in order with the earlier ones that have a frame like one of its own, ascending."""
    lookup = _Lookup(frames, max_bits)
    num_clips = len(frames.starts) - 1
    for start in range(begin, num_clips, BLOCK_CLIPS):
        pairs = lookup.pairs(start, min(start + BLOCK_CLIPS, num_clips))
        for clip in np.unique(pairs[:, 0]):
            first, last = np.searchsorted(pairs[:, 0], [clip, clip + 1])
            yield int(clip), pairs[first:last, 1]


class _Lookup:
    """Finds the clips that have a frame within ``max_bits`` of a given one."""

    def __init__(self, frames: Sequences, max_bits: int) -> None:
        self._frames, self._max_bits = frames, max_bits
        distinct, self._number = np.unique(frames.hashes.view("<u8").ravel(), return_inverse=True)
        shown_by = np.unique(np.stack([self._number, frames.clips], axis=1), axis=0)
        self._clips = shown_by[:, 1]
        self._starts = np.searchsorted(shown_by[:, 0], np.arange(len(distinct) + 1))
        self._telling = np.diff(self._starts) <= MAX_CLIPS_PER_HASH
        self._index = faiss.IndexBinaryMultiHash(8 * HASH_BYTES, NUM_WORDS, WORD_BITS)
        self._index.nflip = FLIPPED_BITS
        self._index.add(np.ascontiguousarray(distinct).view(np.uint8).reshape(-1, HASH_BYTES))

    def pairs(self, begin: int, end: int) -> Places:
        """Pairs [P, 2] of a clip in begin..end and an earlier one, ordered and each once."""
        frames = slice(self._frames.starts[begin], self._frames.starts[end])
        telling = self._telling[self._number[frames]]
        asked, clips = self._frames.hashes[frames][telling], self._frames.clips[frames][telling]
        if not len(asked):
            return np.zeros((0, 2), np.int64)
        limits, _, found = self._index.range_search(
            np.concatenate([asked, fingerprint.mirrored(asked)]), self._max_bits + 1
        )
        askers = np.repeat(np.tile(clips, 2), (limits[1:] - limits[:-1]).astype(np.int64))
        keep = self._telling[found]
        askers, found = askers[keep], found[keep]
        lengths = self._starts[found + 1] - self._starts[found]
        # The clips of each hash that was found, one run after the other.
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        others = self._clips[np.repeat(self._starts[found], lengths) + within]
        pairs = np.stack([np.repeat(askers, lengths), others], axis=1)
        return np.unique(pairs[pairs[:, 1] < pairs[:, 0]], axis=0)


def _shared(
    frames: Sequences, descriptors: Vectors, clip: int, others: Places, max_bits: int
) -> npt.NDArray[np.float64]:
    """Share of the shorter clip's frames that ``clip`` has in common with each of ``others``, the better way round."""
    starts, ends = frames.starts[others], frames.starts[others + 1]
    theirs = np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])
    borders = np.concatenate([[0], np.cumsum(ends - starts)])[:-1]
    own = frames.hashes[frames.starts[clip] : frames.starts[clip + 1]]
    best = np.zeros(len(others))
    for hashes, vector in (
        (own, descriptors[clip]),
        (fingerprint.mirrored(own), descriptor.mirrored(descriptors[clip])),
    ):
        same = np.bitwise_count(hashes.view("<u8") ^ frames.hashes[theirs].view("<u8").T) <= max_bits
        of_own = np.logical_or.reduceat(same, borders, axis=1).mean(axis=0)
        of_theirs = np.add.reduceat(same.any(axis=0).astype(np.int64), borders) / (ends - starts)
        shared = np.where(len(own) <= ends - starts, of_own, of_theirs)
        best = np.maximum(
            best, np.where(descriptor.resemblance(descriptors[others], vector) >= MIN_RESEMBLANCE, shared, 0)
        )
    return best
