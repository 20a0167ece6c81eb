"""Which samples make a step, and which of its ranks computes which: equal work, whatever the samples' shapes.

Samples follow each other in a seeded permutation per epoch, epochs without a gap; a sample's position counts from the
first one on. A window of ``W`` steps takes exactly ``W * batch_size`` consecutive positions, so ``batch_size`` is what
a step has on average, and a step's size is compute: the window's samples are dealt to its steps, heaviest first, each
to the step that has least. Steps therefore differ a little in their number of samples instead of their duration.
Attention makes the work of a sample quadratic in its tokens, so equal tokens would not do (AdaptiveLoad,
arXiv 2605.17923).

Nothing is cropped, padded, dropped or repeated. An epoch's samples come before the next one's; the step in which it
ends is filled with the next. Samples that all cost the same stay in the order of the permutation.

The state is one integer, the step's number: a step is a pure function of (shapes, cost, seed, batch size, number), and
ranks only share it out, so a run may go on with another number of processes.
"""

import dataclasses
import functools
import heapq
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from telecine.errors import InputError
from telecine_components.training.randomness import permutation
from telecine_models import flops
from telecine_models.video_dit.config import VideoDiTConfig

ORDER_STREAM = 1
LOOK_AHEAD_SAMPLES = 2**16
"""Positions in a window, at most. The mean cost of so many samples differs by 1/256 of their deviation from the mean
of all, and dealing them takes a tenth of a second."""

Shape = tuple[int, int, int]
"""Frames, height and width of what the model sees: pixels, or latents."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Work of one sample, forward and backward: a quadratic function of its S tokens beside the text.

    It is ``text_flops + linear_flops * S + quadratic_flops * S**2``.

    Attributes:
        patch: frames, rows and columns of a token.
        conditions: kinds of conditions whose tokens join those of the video.
    """

    linear_flops: float
    quadratic_flops: float
    patch: tuple[int, int, int]
    text_flops: float = 0.0
    conditions: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: VideoDiTConfig, *, num_text_tokens: int = 0) -> "Cost":
        """Of a model that is trained as a whole.

        Args:
            num_text_tokens: tokens that join those of the video, typical of the captions.
        """
        counts = functools.partial(flops.video_dit, config, num_text_tokens=num_text_tokens)
        return cls.fitted(lambda num_tokens: counts(num_video_tokens=num_tokens).training_flops, config.patch_size)

    @classmethod
    def fitted(cls, flops_of: Callable[[int], float], patch: tuple[int, int, int]) -> "Cost":
        """By what samples of no, one and two video tokens cost."""
        none, one, two = map(flops_of, range(3))
        quadratic = (two - 2 * one + none) / 2
        return cls(linear_flops=one - none - quadratic, quadratic_flops=quadratic, patch=patch, text_flops=none)

    def tokens(self, shape: Shape) -> int:
        """Tokens of a sample's video and conditions.

        Raises:
            InputError: a side that is no positive multiple of the patch's.
        """
        try:
            beside = flops.num_condition_tokens(self.conditions, shape, self.patch)
            return flops.num_tokens(shape, self.patch) + beside
        except ValueError as error:
            raise InputError(f"plan: {error}; choose another patch or encode again") from error

    def flops(self, shape: Shape) -> float:
        """Floating-point operations of one sample."""
        tokens = self.tokens(shape)
        return self.text_flops + self.linear_flops * tokens + self.quadratic_flops * tokens**2


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Samples of one shape that run as one batch, by their place in the data set and in the run."""

    shape: Shape
    indices: tuple[int, ...]
    positions: tuple[int, ...]
    num_tokens: int


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """The samples of one step, in the order of their positions.

    Attributes:
        number: of the step, from 0.
        indices, positions: [n] where each sample lies in the data set, and which place in the run it has.
    """

    number: int
    indices: Ints
    positions: Ints
    _plan: "Plan"

    @property
    def num_samples(self) -> int:
        """Samples of all ranks; what the mean of the step's loss is taken over."""
        return len(self.indices)

    @property
    def flops(self) -> float:
        """Work of all ranks."""
        return float(self._plan.costs[self.indices].sum())

    def of_rank(self, rank: int, world_size: int, *, max_tokens: int | None = None) -> list[MicroBatch]:
        """What one of ``world_size`` ranks computes, heaviest shape first; empty where samples are fewer than ranks.

        Args:
            max_tokens: tokens that a micro-batch of several samples may have; larger ones are cut.

        Raises:
            ValueError: a rank that is not one of them.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"plan: rank must be one of 0..{world_size - 1}, got {rank}")
        return self._grouped(self._dealt(world_size)[rank], max_tokens)

    def num_passes(self, world_size: int, *, max_tokens: int | None = None) -> int:
        """Micro-batches of the one of ``world_size`` ranks that has most; see :meth:`of_rank`."""
        return max(len(self._grouped(members, max_tokens)) for members in self._dealt(world_size))

    def flops_of_ranks(self, world_size: int) -> list[float]:
        """Work of each of ``world_size`` ranks."""
        costs = self._plan.costs[self.indices]
        return [float(costs[members].sum()) for members in self._dealt(world_size)]

    def _dealt(self, world_size: int) -> list[Ints]:
        """Each rank's samples, by their place in the step."""
        costs = self._plan.costs[self.indices]
        return _deal(costs, np.arange(len(costs)), [0.0] * world_size)

    def _grouped(self, members: Ints, max_tokens: int | None) -> list[MicroBatch]:
        return self._plan.grouped(self.indices[members], self.positions[members], max_tokens)


class Plan:
    """The order of work of a training run.

    Args:
        shapes: of every sample, in the order of the data set.
        cost: of a sample of a shape.
        seed: of every epoch's permutation.
        batch_size: samples a step has on average, of all ranks together.
        look_ahead: positions in a window, at most; never more than an epoch has.

    Raises:
        InputError: no samples, a batch that holds none, or a shape that the patch does not divide.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        cost: Cost,
        *,
        seed: int,
        batch_size: int,
        look_ahead: int = LOOK_AHEAD_SAMPLES,
    ) -> None:
        for name, value in (("the number of samples", len(shapes)), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"plan: {name} must be at least 1, got {value}")
        self.cost, self.batch_size, self._seed = cost, batch_size, seed
        numbers: dict[Shape, int] = {}
        self._shape_of = np.fromiter((numbers.setdefault(shape, len(numbers)) for shape in shapes), np.int64)
        self.shapes = list(numbers)
        self.costs: Floats = np.array([cost.flops(shape) for shape in self.shapes])[self._shape_of]
        self.steps_per_window = max(1, min(look_ahead, len(shapes)) // batch_size)
        self._window = functools.lru_cache(maxsize=2)(self._make_window)
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.costs)

    @property
    def flops_per_step(self) -> float:
        """Work of a mean step: ``batch_size`` times the mean cost of a sample."""
        return self.batch_size * float(self.costs.mean())

    def step(self, number: int) -> Step:
        """The step of that number, from 0.

        Raises:
            ValueError: a negative number.
        """
        if number < 0:
            raise ValueError(f"plan: a step's number must be at least 0, got {number}")
        window, place = divmod(number, self.steps_per_window)
        positions, indices, bins = self._window(window)
        return Step(number, indices[bins[place]], positions[bins[place]], self)

    def index_at(self, position: int) -> int:
        """Which sample has that position."""
        epoch, place = divmod(position, len(self))
        return int(self._order(epoch)[place])

    def grouped(self, indices: Ints, positions: Ints, max_tokens: int | None) -> list[MicroBatch]:
        """Samples by exact shape, heaviest first, each group in the order of positions."""
        found = []
        kinds = self._shape_of[indices]
        for kind in sorted(set(kinds.tolist()), key=lambda kind: (-self.cost.flops(self.shapes[kind]), kind)):
            members, tokens = np.flatnonzero(kinds == kind), self.cost.tokens(self.shapes[kind])
            size = len(members) if max_tokens is None else max(1, max_tokens // tokens)
            for start in range(0, len(members), size):
                part = members[start : start + size]
                where = tuple(indices[part].tolist()), tuple(positions[part].tolist())
                found.append(MicroBatch(self.shapes[kind], *where, num_tokens=tokens * len(part)))
        return found

    def _make_order(self, epoch: int) -> Ints:
        return permutation(len(self), self._seed, ORDER_STREAM, epoch)

    def _make_window(self, number: int) -> tuple[Ints, Ints, list[Ints]]:
        """Positions and indices of a window's samples, and which of them each of its steps has."""
        size = self.steps_per_window * self.batch_size
        positions = np.arange(number * size, (number + 1) * size)
        epochs, places = np.divmod(positions, len(self))
        indices = np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])
        costs = self.costs[indices]
        if self.steps_per_window == 1 or self.batch_size == 1 or costs.min() == costs.max():
            return positions, indices, list(np.arange(size).reshape(self.steps_per_window, -1))
        return positions, indices, self._dealt(costs, int((epochs == epochs[0]).sum()))

    def _dealt(self, costs: Floats, num_old: int) -> list[Ints]:
        """Samples of each step; the first ``num_old`` are an epoch's last, and go into the first steps."""
        num_steps, num_new = self.steps_per_window, len(costs) - num_old
        if num_new == 0:
            return _deal(costs, np.arange(num_old), [0.0] * num_steps)
        target, old_work = costs.sum() / num_steps, costs[:num_old].sum()
        # As many steps as the old epoch's work fills, if neither those nor the others are left without a sample.
        fewest, most = max(1, num_steps + 1 - num_new), min(num_steps, num_old)
        num_first = min(max(int(np.ceil(old_work / target)), fewest), most)
        # The last of them keeps room for the next epoch's samples.
        room = max(0.0, num_first * target - old_work)
        first = _deal(costs, np.arange(num_old), [0.0] * (num_first - 1) + [room])
        shared = float(costs[first[-1]].sum())
        rest = _deal(costs, np.arange(num_old, len(costs)), [shared] + [0.0] * (num_steps - num_first))
        return [*first[:-1], np.concatenate((first[-1], rest[0])), *rest[1:]]


def _deal(costs: Floats, members: Ints, loads: Sequence[float]) -> list[Ints]:
    """Deal members to bins that carry ``loads`` already: heaviest first, each to the lightest bin (LPT, Graham 1969).

    Equal costs are dealt in order, and a bin's members are in order too.
    """
    heap = [(load, number) for number, load in enumerate(loads)]
    heapq.heapify(heap)
    bins: list[list[int]] = [[] for _ in loads]
    for member in members[np.argsort(-costs[members], kind="stable")].tolist():
        load, number = heap[0]
        bins[number].append(member)
        heapq.heapreplace(heap, (load + costs[member], number))
    return [np.sort(np.array(each, dtype=np.int64)) for each in bins]
