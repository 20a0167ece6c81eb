"""checkpoint_stall_vs_torch_save: what a checkpoint costs a training beside it, until the checkpoint is durable.

A leg takes some plain steps, saves, steps on until the save is durable and at least a few steps have followed, and
takes plain steps again. Its cost is the wall time from the call on, less as many plain steps; no less than the call
took, because what is below that is the unevenness of steps. One compute thread; the model is a small video DiT with
AdamW and an average of its weights. ``torch.save`` is a write, a flush and an fsync; files are new each time.
"""

import contextlib
import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from intervals import spread
from rows import Comparison, Trial
from telecine.storage import Store
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine.work.retention import Keep
from telecine_components.training.saver import Saver
from telecine_models.flow import flow_matching_loss
from telecine_models.video_dit.model import VideoDiT

TARGET = 5.0
MODEL = {
    "short": {"num_layers": 2, "num_heads": 2, "head_dim": 32},
    "full": {"num_layers": 6, "num_heads": 8, "head_dim": 64},
}
PLAIN_STEPS = 6
"""On either side of a checkpoint."""
MIN_STEPS_AFTER = 4
LEGS_PER_RUN = 3
PLAIN, CHECKED = "torch.save", "torch.save, checksums"
MIB = 2**20

State = dict[str, dict[str, Tensor]]
"""By file, then by name."""


class Training:
    """A model, its optimizer and its average; one step takes one batch of noise."""

    def __init__(self, size: str) -> None:
        draw = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.model = VideoDiT(**MODEL[size])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.x0, self.noise = torch.randn(2, 1, 3, 4, 16, 16, generator=draw)
        self.text, self.t = torch.randn(1, 8, 64, generator=draw), torch.full((1,), 0.5)
        self.num_steps = 0

    def step(self, settle: Callable[[], None] = lambda: None) -> None:
        """Forward, backward, clip, AdamW, average; ``settle`` is called before the state moves."""
        predicted = self.model(self.x0 + self.noise, self.t, self.text)
        flow_matching_loss(predicted, self.x0, self.noise).mean().backward()
        settle()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.model.parameters()), 0.01)
        self.num_steps += 1

    def state(self) -> State:
        """What a checkpoint holds; the tensors themselves."""
        optimizer = {
            f"{name}.{slot}": value
            for name, parameter in self.model.named_parameters()
            for slot, value in self.optimizer.state[parameter].items()
        }
        weights = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        return {"weights.safetensors": weights, "ema.safetensors": self.average, "optimizer.safetensors": optimizer}


class Way(Protocol):
    """One way to save."""

    def save(self, number: int, state: State) -> Callable[[], bool]:
        """Begin checkpoint ``number``; returns whether it is durable, to be asked between steps."""

    def settle(self) -> None:
        """Wait until the state may move."""


class Ours:
    """:class:`Saver` over a local store, pruning included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        checkpoints = Checkpoints(
            Store(f"file://{folder}/store"),
            Digests(folder / "home"),
            work_prefix="work/bench/key",
            attempt="one",
            scratch=folder / "scratch",
            before_commit=tuple,
        )
        self._durable: set[int] = set()
        self._saver = Saver(checkpoints, keep=Keep(last=1), on_durable=lambda done: self._durable.add(done.step))
        self.latest = checkpoints.latest

    def save(self, number: int, state: State) -> Callable[[], bool]:
        self._saver.save(number, state, {"step": number})
        return lambda: number in self._durable

    def settle(self) -> None:
        self._saver.settle()

    def close(self) -> None:
        """Wait for what is in flight, and raise what it met."""
        self._saver.wait()


class Copied:
    """A way whose call returns when the state may move."""

    def settle(self) -> None:
        """Nothing."""


class TorchSave(Copied):
    """One file, flushed to the disk before the call returns, with or without the checksums of its archive."""

    def __init__(self, folder: Path, *, has_checksums: bool) -> None:
        self.folder, self._has_checksums = folder, has_checksums
        folder.mkdir(parents=True)

    def save(self, number: int, state: State) -> Callable[[], bool]:
        with _checksums(enabled=self._has_checksums), (self.folder / f"{number}.pt").open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        return lambda: True


@contextlib.contextmanager
def _checksums(*, enabled: bool) -> Iterator[None]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(enabled)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class Distributed(Copied):
    """``torch.distributed.checkpoint.async_save`` of one rank, by a thread or a process."""

    def __init__(self, folder: Path, *, kind: str) -> None:
        self.folder, self._kind = folder, kind

    def save(self, number: int, state: State) -> Callable[[], bool]:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save

        writer = FileSystemWriter(self.folder / str(number))
        done = async_save(state, storage_writer=writer, async_checkpointer_type=AsyncCheckpointerType(self._kind))
        assert isinstance(done, Future)
        return done.done


@dataclasses.dataclass(frozen=True)
class Leg:
    """Seconds of one checkpoint: beyond the plain steps, inside the call, until durable; and of one plain step."""

    extra_s: float
    call_s: float
    durable_s: float
    step_s: float


def leg(training: Training, way: Way) -> Leg:
    """See the module."""
    plain = [_seconds(training.step) for _ in range(PLAIN_STEPS)]
    began = time.perf_counter()
    is_durable = way.save(training.num_steps, training.state())
    call_s = time.perf_counter() - began
    num_steps, durable_s = 0, call_s if is_durable() else 0.0
    while not durable_s or num_steps < MIN_STEPS_AFTER:
        training.step(way.settle)
        num_steps += 1
        if not durable_s and is_durable():
            durable_s = time.perf_counter() - began
    whole_s = time.perf_counter() - began
    step_s = statistics.median(plain + [_seconds(training.step) for _ in range(PLAIN_STEPS)])
    return Leg(whole_s - num_steps * step_s, call_s, durable_s, step_s)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def checkpoint_stall_vs_torch_save(trial: Trial) -> Comparison:
    """Legs of both in turn on one training, then the other ways to save."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    with one_thread():
        training = Training(trial.size)
        for _ in range(3):  # the optimizer has no state before its first step
            training.step()
        ours = Ours(trial.folder / "ours")
        ways: dict[str, Way] = {
            "ours": ours,
            PLAIN: TorchSave(trial.folder / PLAIN, has_checksums=False),
            CHECKED: TorchSave(trial.folder / CHECKED, has_checksums=True),
        }
        gate = reloaded(training, ours)
        legs = _legs(trial, training, ways)
        with process_group(trial.folder / "rendezvous"):
            others = {kind: _distributed(trial, training, kind) for kind in ("thread", "process")}
    return compared(legs, others, gate, num_bytes(training.state()), copy_s(training.state()))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One compute thread for the block; the other core is left to whoever saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reloaded(training: Training, ours: Ours) -> str:
    """Whether a checkpoint, saved while the next steps change the state, has the bits of the moment of the call."""
    expected = {file: {name: t.clone() for name, t in named.items()} for file, named in training.state().items()}
    ours.save(training.num_steps, training.state())
    for _ in range(2):
        training.step(ours.settle)
    ours.close()
    latest = ours.latest()
    assert latest is not None, "it has just been committed"
    found = {file: load_file(latest.dir / file) for file in expected}
    odd = [
        f"{file} {name}" for file, named in expected.items() for name in named if not _same(named, found[file], name)
    ]
    return f"differs: {', '.join(odd[:3])}" if odd else "equal"


def _same(expected: dict[str, Tensor], found: dict[str, Tensor], name: str) -> bool:
    return name in found and torch.equal(expected[name], found[name])


def _legs(trial: Trial, training: Training, ways: dict[str, Way]) -> dict[str, list[Leg]]:
    """Legs of every way in turn; the order turns round each time, and the first round is not counted."""
    num_rounds = LEGS_PER_RUN * trial.num_runs
    legs: dict[str, list[Leg]] = {name: [] for name in ways}
    trial.progress(0, num_rounds)
    for number in range(-1, num_rounds):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            found = leg(training, ways[name])
            if name != "ours":  # ours prunes within the leg
                _empty(trial.folder / name)
            if number >= 0:
                legs[name].append(found)
        trial.progress(number + 1, num_rounds)
    return legs


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def process_group(rendezvous: Path) -> Iterator[None]:
    """The group of one rank that distributed checkpoints ask for."""
    had = torch.distributed.is_initialized()
    if not had:
        store = torch.distributed.FileStore(str(rendezvous), 1)  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        if not had:
            torch.distributed.destroy_process_group()


def _distributed(trial: Trial, training: Training, kind: str) -> list[Leg]:
    """A few legs, the first of which is not counted: it begins the thread or the process."""
    way = Distributed(trial.folder / f"distributed-{kind}", kind=kind)
    legs = []
    for _ in range(LEGS_PER_RUN + 1):
        legs.append(leg(training, way))
        _empty(way.folder)
    return legs[1:]


def num_bytes(state: State) -> int:
    """Of all tensors."""
    return sum(tensor.nbytes for named in state.values() for tensor in named.values())


def copy_s(state: State) -> float:
    """Median seconds of copying the state into memory that is there."""
    places = [torch.empty_like(tensor) for named in state.values() for tensor in named.values()]
    tensors = [tensor for named in state.values() for tensor in named.values()]

    def copy() -> None:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)

    copy()
    return statistics.median(_seconds(copy) for _ in range(7))


def compared(
    legs: dict[str, list[Leg]], others: dict[str, list[Leg]], gate: str, size_bytes: int, memcpy_s: float
) -> Comparison:
    """The row; a checkpoint that does not come back bit for bit claims no ratio."""
    # Which is cheaper depends on what the page cache holds, so the better one is chosen from what was measured.
    peer = min((PLAIN, CHECKED), key=lambda name: _cost_s(legs[name]))
    pairs = list(zip(legs["ours"], legs[peer], strict=True))
    stands, ratio, sure = gate == "equal", _ratio(pairs), spread(_ratio, pairs)
    named = legs | {f"distributed async_save, {kind}": found for kind, found in others.items()}
    return Comparison(
        what=(
            "seconds that a checkpoint costs a training, from the call until it is durable, the steps beside it "
            "included, against torch.save with an fsync"
        ),
        ours=_cost_s(legs["ours"]),
        peer=_cost_s(legs[peer]),
        ratio=ratio if stands else None,
        low=sure.low if stands else None,
        high=sure.high if stands else None,
        limit=f"nothing, as all of it can lie beside the steps; a copy of the state takes {1000 * memcpy_s:.0f} ms",
        target=f"the peer's over ours >= {TARGET:.0f}",
        holds=stands and ratio >= TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details={
            "what_low_and_high_are": sure.kind,
            "state_mib": size_bytes / MIB,
            "the_peer": peer,
            "milliseconds": {name: _line(found) for name, found in named.items()},
        },
    )


def _ratio(pairs: Sequence[tuple[Leg, Leg]]) -> float:
    return _cost_s([peer for _, peer in pairs]) / _cost_s([ours for ours, _ in pairs])


def _cost_s(legs: Sequence[Leg]) -> float:
    return max(_median(legs, "extra_s"), _median(legs, "call_s"))


def _median(legs: Sequence[Leg], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in legs))


def _line(legs: Sequence[Leg]) -> dict[str, Any]:
    names = {"extra_s": "extra", "call_s": "inside the call", "durable_s": "until durable", "step_s": "a plain step"}
    return {shown: 1000 * _median(legs, name) for name, shown in names.items()}
