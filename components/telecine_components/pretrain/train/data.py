"""What the trainer needs from a dataset, checked before any step is spent."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from telecine.errors import InputError
from telecine_components.training.annotations import has
from telecine_components.training.loader import Loader, Sample, read_index


@dataclasses.dataclass(frozen=True)
class Splits:
    """Samples to train on and samples held out.

    Attributes:
        left_out: held-out samples that are not in ``val``, because they hold something else than numbers.
    """

    train: Loader
    val: Loader
    left_out: tuple[str, ...] = ()

    @property
    def samples(self) -> list[Sample]:
        """All of them."""
        return [*self.train.samples, *self.val.samples]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels that most training samples have; of videos, where there are any."""
        shapes = Counter((sample.num_frames, sample.height_px, sample.width_px) for sample in self.train.samples)
        videos = Counter({shape: count for shape, count in shapes.items() if shape[0] > 1})
        return (videos or shapes).most_common(1)[0][0]

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
    num_ranks: int,
    patch: tuple[int, int, int],
    seed: int,
    conditions: Sequence[str] = (),
    actions: bool = False,
) -> Splits:
    """Read the index and check it against the inputs.

    Raises:
        InputError: no samples, a clip that is on both sides, a batch larger than the training split or one that ranks
            cannot share, a patch that does not divide a sample, a shard that is missing or has other bytes than the
            index says, no held-out sample that holds numbers, conditions or actions that no training sample has.
    """
    splits = read_splits(dataset, locate, seed=seed, conditions=conditions, actions=actions)
    for name, members in (("train", splits.train), ("val", splits.val)):
        if not len(members):
            raise InputError(
                f"pretrain.train: dataset_uri must have {name} samples, got none among "
                f"{len(splits.train) + len(splits.val)}; give more footage or loosen curate.filter"
            )
    _check_held_out(splits)
    _check_batch(len(splits.train), batch_size, num_ranks)
    _check_shapes(splits.samples, patch)
    _check_shards(splits.samples, locate, digest)
    _check_annotations(splits.train.samples, [*conditions, *(("actions",) if actions else ())])
    return _without_bad(splits)


def read_splits(
    dataset: Path, locate: Callable[[str], Path], *, seed: int, conditions: Sequence[str] = (), actions: bool = False
) -> Splits:
    """The splits as the index has them; batches have these kinds of conditions, and actions if they are asked for."""
    samples = read_index(dataset / "index.parquet")
    train, val = (
        Loader(
            [sample for sample in samples if sample.split == name],
            locate,
            seed=seed,
            conditions=conditions,
            actions=actions,
        )
        for name in ("train", "val")
    )
    return Splits(train, val)


def _without_bad(splits: Splits) -> Splits:
    """Held-out latents that are not finite would make every held-out figure none; frames are bytes, so always finite.

    In training such a sample costs one rollback, which leaves it out.
    """
    latents = {index for index, sample in enumerate(splits.val.samples) if sample.latent_shape is not None}
    bad = {index for index in latents if not splits.val.gather([index]).x0.isfinite().all()}
    if not bad:
        return splits
    if len(bad) == len(splits.val):
        raise InputError(
            f"pretrain.train: val samples must hold finite numbers, got none among {len(bad)}; cache the dataset again"
        )
    left_out = tuple(splits.val.samples[index].sample_id for index in sorted(bad))
    return Splits(splits.train, splits.val.without(bad), left_out)


def _check_held_out(splits: Splits) -> None:
    """What is trained on is not held out, and would be measured as if it were."""
    train, val = ({sample.clip_id for sample in split.samples} for split in (splits.train, splits.val))
    if both := sorted(train & val):
        raise InputError(
            f"pretrain.train: each clip of dataset_uri must be in train or in val, got {len(both)} in both, "
            f"{both[0]} among them; encode the dataset again"
        )


def _check_batch(num_train: int, batch_size: int, num_ranks: int) -> None:
    if batch_size > num_train:
        raise InputError(
            f"pretrain.train: batch_size must be at most the {num_train} training samples, got {batch_size}; lower it"
        )
    if batch_size < num_ranks or batch_size % num_ranks:
        raise InputError(
            f"pretrain.train: batch_size must be a multiple of the {num_ranks} ranks that share it, got {batch_size}"
        )


def _check_shapes(samples: Sequence[Sample], patch: tuple[int, int, int]) -> None:
    patch_frames, patch_rows, patch_columns = patch
    unit = "latents" if samples[0].latent_shape else "pixels"
    for num_frames, height, width in sorted({sample.shape for sample in samples}):
        if height % patch_rows or width % patch_columns:
            raise InputError(
                f"pretrain.train: patch_px must divide the samples' {width}x{height} {unit}, got {patch_rows}"
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


def _check_annotations(samples: Sequence[Sample], kinds: Sequence[str]) -> None:
    """Some samples may lack a kind, but not all of them."""
    missing = [kind for kind in kinds if not any(has(sample, kind) for sample in samples)]
    if missing:
        carried = sorted({name for sample in samples for name in sample.members}) or "none"
        raise InputError(
            f"pretrain.train: dataset_uri must carry {', '.join(missing)} beside its frames, got {carried}; give what "
            "backlot.encode wrote, or take out of the inputs what it does not carry"
        )
