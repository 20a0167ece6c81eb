"""What the trainer needs from a dataset, checked before any step is spent."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from telecine.errors import InputError
from telecine_components.training.loader import Loader, Sample, read_index


@dataclasses.dataclass(frozen=True)
class Splits:
    """Samples to train on and samples held out; all of one shape."""

    train: Loader
    val: Loader

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of every sample, in frames and pixels."""
        first = self.train.samples[0]
        return first.num_frames, first.height_px, first.width_px

    @property
    def fps(self) -> float:
        """Frame rate that most training samples have."""
        return Counter(sample.fps for sample in self.train.samples).most_common(1)[0][0]


def open_splits(
    dataset: Path,
    locate: Callable[[str], Path],
    digest: Callable[[Path], str],
    *,
    batch_size: int,
    patch: tuple[int, int, int],
    seed: int,
) -> Splits:
    """Read the index and check it against the inputs.

    Raises:
        InputError: no samples, mixed shapes, a batch larger than the training split, a patch that does not divide
            the frames, a shard that is missing or has other bytes than the index says.
    """
    samples = read_index(dataset / "index.parquet")
    splits = {name: [sample for sample in samples if sample.split == name] for name in ("train", "val")}
    for name, members in splits.items():
        if not members:
            raise InputError(
                f"pretrain.train: dataset_uri must have {name} samples, got none among {len(samples)}; "
                "give more footage or loosen curate.filter"
            )
    _check_batch(len(splits["train"]), batch_size)
    _check_shape(samples, patch)
    _check_shards(samples, locate, digest)
    return Splits(*(Loader(splits[name], locate, seed=seed) for name in ("train", "val")))


def _check_batch(num_train: int, batch_size: int) -> None:
    if batch_size > num_train:
        raise InputError(
            f"pretrain.train: batch_size must be at most the {num_train} training samples, got {batch_size}; lower it"
        )


def _check_shape(samples: Sequence[Sample], patch: tuple[int, int, int]) -> None:
    shapes = Counter((sample.num_frames, sample.height_px, sample.width_px) for sample in samples)
    if len(shapes) > 1:
        raise InputError(f"pretrain.train: samples must have one shape [F, H, W], got {sorted(shapes)}; encode again")
    num_frames, height_px, width_px = next(iter(shapes))
    patch_frames, patch_px, _ = patch
    if height_px % patch_px or width_px % patch_px:
        raise InputError(
            f"pretrain.train: patch_px must divide the samples' {width_px}x{height_px} pixels, got {patch_px}"
        )
    if num_frames % patch_frames:
        raise InputError(
            f"pretrain.train: patch_frames must divide the samples' {num_frames} frames, got {patch_frames}"
        )


def _check_shards(samples: Sequence[Sample], locate: Callable[[str], Path], digest: Callable[[Path], str]) -> None:
    for shard, expected in sorted({(sample.shard, sample.shard_digest) for sample in samples}):
        path = locate(shard)
        if not path.is_file():
            raise InputError(f"pretrain.train: shard {shard} is missing; run curate.encode again")
        if digest(path) != expected:
            raise InputError(
                f"pretrain.train: shard {shard} has other bytes than its index says; run curate.encode again"
            )
