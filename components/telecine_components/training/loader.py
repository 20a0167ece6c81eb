"""Samples from shard tars by offset and length, in an order that a seed fixes and one integer locates.

The order is a seeded permutation per epoch, and the position is the number of samples consumed since the first
step: the batch at a position is a pure function of (index, seed, position), so exact resume needs no reader state.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from telecine.errors import InputError
from telecine_components.media.shards import read_array
from telecine_components.training.randomness import permutation
from telecine_models.pixels import to_model_range

_ORDER_STREAM = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of the index: where the frames lie (``offset`` and ``length`` in bytes of ``shard``), what they show."""

    sample_id: str
    clip_id: str
    caption: str
    split: str
    shard: str
    shard_digest: str
    offset: int
    length: int
    num_frames: int
    height_px: int
    width_px: int
    fps: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """``x0`` [B, C, F, H, W] float32 in [-1, 1] and one caption each."""

    x0: torch.Tensor
    captions: list[str]


@dataclasses.dataclass(frozen=True)
class WeightedBatch(Batch):
    """A batch whose samples count differently: ``weights`` [B] float32."""

    weights: torch.Tensor


def read_index(path: Path) -> list[Sample]:
    """Rows of ``index.parquet`` in its order; raises :class:`InputError` for a file that is no index."""
    columns = [field.name for field in dataclasses.fields(Sample)]
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name} in it; pass the dataset folder that curate.encode wrote")
    missing = sorted(set(columns) - set(pq.read_schema(path).names))
    if missing:
        raise InputError(f"{path}: the index lacks {', '.join(missing)}; encode the dataset again")
    rows = pq.read_table(path, columns=columns).to_pylist()
    return [Sample(**{**row, "caption": row["caption"] or ""}) for row in rows]


class Loader:
    """Random access to the samples of one split, and their training order.

    Args:
        samples: rows of the index; all of one shape.
        locate: local path of a shard, given its store path.
        seed: fixes the order of every epoch.
    """

    def __init__(self, samples: Sequence[Sample], locate: Callable[[str], Path], *, seed: int) -> None:
        self.samples = list(samples)
        self._locate = locate
        self._seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.samples)

    def frames(self, index: int) -> np.ndarray:
        """Frames of one sample, uint8 [F, H, W, 3]; raises :class:`InputError` where the shard does not hold them."""
        sample = self.samples[index]
        expected = (sample.num_frames, sample.height_px, sample.width_px, 3)
        try:
            frames = read_array(self._locate(sample.shard), sample.offset, sample.length)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"{sample.shard}: {error}; encode the dataset again") from error
        if frames.dtype != np.uint8 or frames.shape != expected:
            raise InputError(
                f"{sample.shard}: sample {sample.sample_id} must be uint8 {list(expected)}, "
                f"got {frames.dtype} {list(frames.shape)}; encode the dataset again"
            )
        return frames

    def batch(self, position: int, batch_size: int) -> Batch:
        """The ``batch_size`` samples that follow ``position`` consumed samples; epochs join without a gap."""
        return self.gather([self.index_at(position + i) for i in range(batch_size)])

    def gather(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, in this order."""
        frames = np.stack([self.frames(i) for i in indices])
        return Batch(to_model_range(torch.from_numpy(frames)), [self.samples[i].caption for i in indices])

    def weighted_batch(self, position: int, batch_size: int, weights: Sequence[float]) -> WeightedBatch:
        """Like :meth:`batch`, with the weight of each sample; ``weights`` are in the order of the samples."""
        indices = [self.index_at(position + i) for i in range(batch_size)]
        batch = self.gather(indices)
        return WeightedBatch(batch.x0, batch.captions, torch.tensor([weights[i] for i in indices], dtype=torch.float32))

    def index_at(self, position: int) -> int:
        """Which sample is consumed at ``position``."""
        epoch, place = divmod(position, len(self.samples))
        if self._order[0] != epoch:
            self._order = (epoch, permutation(len(self.samples), self._seed, _ORDER_STREAM, epoch))
        return int(self._order[1][place])
