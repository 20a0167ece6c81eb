"""Samples from shard tars by offset and length, in an order that a seed fixes and one integer locates.

Samples are frames, or latents that pretrain.cache computed once. Where all have one shape, the position is the number
of samples consumed since the first step, and the batch at a position is a pure function of (index, seed, position).
Where shapes differ, a :class:`telecine_components.training.plan.Plan` says which samples make a step, and the step's
number locates it. Either way exact resume needs no reader state.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from telecine.errors import InputError
from telecine_components.training.annotations import Annotations, Members
from telecine_components.training.plan import ORDER_STREAM, Cost, MicroBatch, Plan, Shape
from telecine_components.training.randomness import permutation
from telecine_components.training.shard_reader import ShardReader
from telecine_models.pixels import to_model_range
from telecine_models.video_dit.action import Actions
from telecine_models.video_dit.conditions import Conditions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of the index: where the sample lies (``offset`` and ``length`` in bytes of ``shard``), what it shows.

    Attributes:
        num_frames, height_px, width_px, fps: of the video, also where latents are what is stored.
        latent_shape: [C, F, H, W] of stored latents; None where frames are stored.
        text_offset, text_length: the caption's token vectors in the same shard; None where they are not stored.
        members: what the sample has beside its frames; see :mod:`telecine_components.training.annotations`.
    """

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
    latent_shape: tuple[int, int, int, int] | None = None
    text_offset: int | None = None
    text_length: int | None = None
    members: Members = dataclasses.field(default_factory=dict)

    @property
    def x0_shape(self) -> tuple[int, int, int, int]:
        """[C, F, H, W] of what the model is trained on."""
        return self.latent_shape or (3, self.num_frames, self.height_px, self.width_px)

    @property
    def shape(self) -> Shape:
        """Frames, height and width of what the model is trained on."""
        return self.x0_shape[1:]


_NEEDED: dict[str, Any] = {
    field.name: field.type
    for field in dataclasses.fields(Sample)
    if field.default is field.default_factory is dataclasses.MISSING
}
"""What an index must have, by its type."""
_ABOVE = {"offset": -1}
"""Numbers lie above this, or above 0."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """``x0`` [B, C, F, H, W] float32, frames in [-1, 1] or latents, and one caption each.

    Attributes:
        positions: place of each sample in the run, from 0; what its noise is keyed by. Empty where there is no order.
        conditions, actions: what the samples have beside their captions; None where nobody asked for them.
    """

    x0: torch.Tensor
    captions: list[str]
    positions: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    conditions: Conditions | None = dataclasses.field(default=None, kw_only=True)
    actions: Actions | None = dataclasses.field(default=None, kw_only=True)

    @property
    def beside(self) -> dict[str, Conditions | Actions]:
        """What a denoiser is given beside the text, by the names that it has there."""
        given = {"conditions": self.conditions, "actions": self.actions}
        return {name: value for name, value in given.items() if value is not None}

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """The same with every tensor changed: on a device, say."""
        beside: Any = {name: value.map(change) for name, value in self.beside.items()}
        return dataclasses.replace(self, x0=change(self.x0), **beside)


@dataclasses.dataclass(frozen=True)
class WeightedBatch(Batch):
    """A batch whose samples count differently: ``weights`` [B] float32."""

    weights: torch.Tensor


@dataclasses.dataclass(frozen=True)
class StepBatches:
    """What a rank computes in one step.

    Attributes:
        batches: one shape each, heaviest first; none where a step has fewer samples than ranks.
        num_samples: of the step, on all ranks; what the mean of its loss is taken over.
        flops: of the step, on all ranks.
        spares: one for each batch that another rank has more, to compute in its place and to count for nothing.
    """

    batches: list[Batch]
    num_samples: int
    flops: float
    spares: list[Batch] = dataclasses.field(default_factory=list)


def read_index(path: Path) -> list[Sample]:
    """Rows of ``index.parquet`` in its order.

    Raises:
        InputError: for a file that is no index, or one in which a value is missing or is none that its column is for.
    """
    fields = dataclasses.fields(Sample)
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name} in it; pass the dataset folder that curate.encode wrote")
    try:
        found = set(pq.read_schema(path).names)
        table = pq.read_table(path, columns=[field.name for field in fields if field.name in found])
    except pa.ArrowException as error:
        raise InputError(f"{path}: it must be a Parquet file: {error}; encode the dataset again") from error
    if missing := sorted(_NEEDED.keys() - found):
        raise InputError(f"{path}: the index lacks {', '.join(missing)}; encode the dataset again")
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        if problem := _problem(row):
            raise InputError(f"{path}: row {number}: {problem}; encode the dataset again")
    return [_sample(row) for row in rows]


def _problem(row: dict[str, Any]) -> str:
    """What a row of the index holds that cannot be, in words; empty where all is well. It may lack a caption."""
    for name, kind in _NEEDED.items():
        value = row[name]
        if name == "caption" and value is None:
            continue
        if not isinstance(value, (int, float) if kind is float else kind):
            return f"{name} must be of type {kind.__name__}, got {value!r}"
        if kind is not str and not value > _ABOVE.get(name, 0):
            return f"{name} must be above {_ABOVE.get(name, 0)}, got {value!r}"
    return ""


def _sample(row: dict[str, Any]) -> Sample:
    latent_shape = row.get("latent_shape")
    changed = {"caption": row["caption"] or "", "latent_shape": tuple(latent_shape) if latent_shape else None}
    changed["members"] = {each["name"]: (each["offset"], each["length"]) for each in row.get("members") or ()}
    return Sample(**row | changed)


class Loader:
    """Random access to the samples of one split, and their training order.

    Args:
        samples: rows of the index.
        locate: local path of a shard, given its store path.
        seed: fixes the order of every epoch.
        conditions: kinds of conditions that batches have.
        actions: whether they have actions.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        locate: Callable[[str], Path],
        *,
        seed: int,
        conditions: Sequence[str] = (),
        actions: bool = False,
    ) -> None:
        self.samples = list(samples)
        self._shards = ShardReader(locate)
        self._annotations = Annotations(self._shards, conditions, actions=actions)
        self._seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def beside(self) -> tuple[str, ...]:
        """What batches have beside captions: kinds of conditions, and ``actions``."""
        return self._annotations.kinds + (("actions",) if self._annotations.has_actions else ())

    def without(self, indices: Collection[int]) -> "Loader":
        """The same with some samples left out."""
        found = copy.copy(self)
        found.samples = [sample for index, sample in enumerate(self.samples) if index not in indices]
        found._order = (-1, np.empty(0, dtype=np.int64))
        return found

    def frames(self, index: int) -> np.ndarray:
        """Frames of one sample, uint8 [F, H, W, 3]; raises :class:`InputError` where the shard does not hold them."""
        sample = self.samples[index]
        return self._stored(sample, np.uint8, (sample.num_frames, sample.height_px, sample.width_px, 3))

    def latents(self, index: int) -> np.ndarray:
        """Latents of one sample, float16 or float32 [C, F, H, W]; raises :class:`InputError` as :meth:`frames`."""
        sample = self.samples[index]
        return self._stored(sample, np.floating, sample.x0_shape)

    def _stored(self, sample: Sample, kind: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
        found = self._shards.array(sample.shard, sample.offset, sample.length)
        if not np.issubdtype(found.dtype, kind) or found.shape != shape:
            raise InputError(
                f"{sample.shard}: sample {sample.sample_id} must be {kind.__name__} {list(shape)}, "
                f"got {found.dtype} {list(found.shape)}; encode the dataset again"
            )
        return found

    def batch(self, position: int, batch_size: int) -> Batch:
        """The ``batch_size`` samples that follow ``position`` consumed samples; epochs join without a gap."""
        positions = range(position, position + batch_size)
        return self.gather([self.index_at(each) for each in positions], positions)

    def gather(self, indices: Sequence[int], positions: Sequence[int] = ()) -> Batch:
        """The samples with these indices, in this order; all of one shape.

        Raises:
            ValueError: samples of several shapes.
        """
        shapes = {self.samples[i].x0_shape for i in indices}
        if len(shapes) != 1:
            raise ValueError(f"loader: a batch must have one shape [C, F, H, W], got {sorted(shapes)}")
        samples = [self.samples[i] for i in indices]
        frames = [self.frames(i) for i in indices] if samples[0].latent_shape is None else []
        if frames:
            x0 = to_model_range(torch.from_numpy(np.stack(frames)))
        else:
            x0 = torch.from_numpy(np.stack([self.latents(i) for i in indices])).to(torch.float32)
        return Batch(
            x0,
            [sample.caption for sample in samples],
            positions=tuple(positions),
            conditions=self._annotations.conditions(samples, frames),
            actions=self._annotations.actions(samples),
        )

    def weighted_batch(self, position: int, batch_size: int, weights: Sequence[float]) -> WeightedBatch:
        """Like :meth:`batch`, with the weight of each sample; ``weights`` are in the order of the samples."""
        batch = self.batch(position, batch_size)
        chosen = [weights[self.index_at(each)] for each in batch.positions]
        weighted = torch.tensor(chosen, dtype=torch.float32)
        return WeightedBatch(batch.x0, batch.captions, weighted, positions=batch.positions)

    def index_at(self, position: int) -> int:
        """Which sample is consumed at ``position``."""
        epoch, place = divmod(position, len(self.samples))
        if self._order[0] != epoch:
            self._order = (epoch, permutation(len(self.samples), self._seed, ORDER_STREAM, epoch))
        return int(self._order[1][place])

    def plan(self, cost: Cost, *, batch_size: int) -> Plan:
        """The order of work where shapes differ; where they do not, step ``k`` is ``batch(k * batch_size, …)``.

        Raises:
            InputError: as :class:`Plan`.
        """
        return Plan([sample.shape for sample in self.samples], cost, seed=self._seed, batch_size=batch_size)

    def micro_batch(self, chosen: MicroBatch) -> Batch:
        """The samples of a planned micro-batch."""
        return self.gather(chosen.indices, chosen.positions)


class Steps:
    """A rank's batches by the step's number, the next step's read in a thread meanwhile; a context manager.

    The thread is never more than one step ahead, and what it meets is raised when its step is asked for. Any step may
    be asked for at any time; only the one after the last is there sooner.

    Args:
        rank, world_size: which share of a step is read.
        max_tokens: see :meth:`Step.of_rank`.
    """

    def __init__(
        self, loader: Loader, plan: Plan, *, rank: int = 0, world_size: int = 1, max_tokens: int | None = None
    ) -> None:
        self._loader, self._plan = loader, plan
        self._rank, self._world_size, self._max_tokens = rank, world_size, max_tokens
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._ahead: tuple[int, Future[StepBatches]] | None = None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> StepBatches:
        """The batches of a step, from 0.

        Raises:
            InputError: a shard does not hold what the index says.
        """
        ready = self._ahead
        found = ready[1] if ready and ready[0] == step else self._thread.submit(self._read, step)
        batches = found.result()
        self._ahead = (step + 1, self._thread.submit(self._read, step + 1))
        return batches

    def _read(self, step: int) -> StepBatches:
        planned = self._plan.step(step)
        chosen = planned.of_rank(self._rank, self._world_size, max_tokens=self._max_tokens)
        batches = [self._loader.micro_batch(each) for each in chosen]
        missing = planned.num_passes(self._world_size, max_tokens=self._max_tokens) - len(batches)
        return StepBatches(batches, planned.num_samples, planned.flops, [self._spare] * missing)

    @functools.cached_property
    def _spare(self) -> Batch:
        """The cheapest sample with zeros for its video: nothing in it can be what a bad sample's loss is, no number."""
        batch = self._loader.gather([int(self._plan.costs.argmin())], [0])
        return dataclasses.replace(batch, x0=torch.zeros_like(batch.x0), captions=[""])
