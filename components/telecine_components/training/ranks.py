"""The processes that train one model together. Rank 0 is the component's own process; the others follow it.

On one machine rank 0 starts the others, which meet it in a file. Across machines Kubeflow Trainer starts a process on
each node and tells it where the first one is (``PET_…``, the variables of torchrun); each starts the ranks of its
node. Ranks that follow compute, and nothing else: what is read, committed, logged and drawn is rank 0's.
"""

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from telecine.errors import RetryLater
from telecine.nodes import Nodes

MEETING_TIMEOUT_S = 300.0
STEP_TIMEOUT_S = 1800.0
CPU = torch.device("cpu")
FAREWELL_S = 20.0


@dataclasses.dataclass(frozen=True)
class Ranks:
    """A process among those that train one model.

    Attributes:
        number: from 0, which leads.
        size: how many there are.
        device: what this one computes on.
    """

    number: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.number == 0

    def total(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in float64; every rank has to call it."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def told(self, value: Any) -> Any:
        """Rank 0's value, something that JSON can say, on every rank; every rank has to call it."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.leads else b""
        length = torch.tensor([len(text)], device=self.device)
        dist.broadcast(length, src=0)
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if self.leads else torch.empty(0, dtype=torch.uint8)
        data = data.to(self.device) if self.leads else data.new_empty(int(length.item()), device=self.device)
        dist.broadcast(data, src=0)
        return json.loads(bytes(data.tolist()))

    def tensors(self, mine: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rank 0's tensors by name, on every rank; every rank has to call it, and what others give is ignored."""
        if self.size == 1:
            return dict(mine)
        layout = [(name, str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in mine.items()]
        sent = {}
        for name, dtype, shape in self.told(layout):
            here = mine[name].to(self.device) if self.leads else torch.empty(shape, dtype=getattr(torch, dtype))
            sent[name] = here.to(self.device).contiguous()
            dist.broadcast(sent[name], src=0)
        return sent


@contextlib.contextmanager
def together(
    num_processes: int, follow: Callable[..., None], *arguments: Any, nodes: Nodes | None = None
) -> Iterator[Ranks]:
    """Be the first rank of this node for the block, and start ``follow(ranks, *arguments)`` as its others.

    Args:
        num_processes: ranks of this node.
        follow: a function of a module, and its arguments plain data: they cross to other processes.

    Raises:
        RetryLater: a rank of this node died; the others cannot go on without it.
    """
    nodes = nodes or Nodes.from_environment()
    size, first = num_processes * nodes.count, num_processes * nodes.number
    if size == 1:
        _meet("", 0, 1)
        yield Ranks(device=_device(0))
        return
    with tempfile.TemporaryDirectory(prefix="telecine-ranks-") as folder:
        place = nodes.address or f"file://{folder}/meeting"
        children = [_start(place, first, local, size, follow, arguments) for local in range(1, num_processes)]
        try:
            with _surviving(children):
                _meet(place, first, size)
                yield Ranks(first, size, _device(0))
                dist.barrier()
        finally:
            _part(children)


def _start(
    place: str, first: int, local: int, size: int, follow: Callable[..., None], arguments: Sequence[Any]
) -> BaseProcess:
    settings = (place, first + local, local, size, os.getpid())
    child = mp.get_context("spawn").Process(
        target=_be_a_follower, args=(*settings, follow, arguments), name=f"rank-{first + local}", daemon=True
    )
    child.start()
    return child


def _be_a_follower(
    place: str, number: int, local: int, size: int, parent: int, follow: Callable[..., None], arguments: Sequence[Any]
) -> None:
    """Whether to stop is rank 0's decision, which comes with the next step; so this process ignores the signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["LOCAL_RANK"] = str(local)
    _meet(place, number, size)
    follow(Ranks(number, size, _device(local)), *arguments)
    dist.barrier()
    dist.destroy_process_group()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(75)


def _meet(place: str, number: int, size: int) -> None:
    """Join the process group. One process talks to nobody, and several on one machine stay on its loopback."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not place.startswith("tcp://"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if dist.is_initialized():
        return
    if size == 1:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=STEP_TIMEOUT_S)
    dist.init_process_group(backend, init_method=place, rank=number, world_size=size, timeout=timeout)


@contextlib.contextmanager
def _surviving(children: Sequence[BaseProcess]) -> Iterator[None]:
    """Name the rank whose death is behind an error of communication."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(1.0)  # the connection breaks before the process is reaped
        dead = [child for child in children if child.exitcode not in (None, 0)]
        if not dead:
            raise
        raise RetryLater(f"{dead[0].name} ended with {dead[0].exitcode}; call again to go on") from error


def _part(children: Sequence[BaseProcess]) -> None:
    """End what is left: nobody waits for a rank that follows a leader who has given up."""
    deadline = time.monotonic() + FAREWELL_S
    failed = any(child.exitcode not in (None, 0) for child in children)
    for child in children:
        child.join(0.0 if failed else max(0.0, deadline - time.monotonic()))
        if child.exitcode is None:
            child.kill()
            child.join()
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(local: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
