"""The processes that train one model together. Rank 0 is the component's own process; the others follow it.

On one machine rank 0 starts the others, which meet it in a file. Across machines Kubeflow Trainer starts a process on
each node and tells it where the first one is (``PET_…``, the variables of torchrun); each starts the ranks of its
node. Ranks that follow compute, and nothing else: what is read, committed, logged and drawn is rank 0's.

They live and die together. Who follows is killed by the kernel when its leader ends, also where it was stopped; a
leader whose follower died says so and asks to be called again.
"""

import contextlib
import ctypes
import dataclasses
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from telecine.errors import InputError, RetryLater
from telecine.nodes import Nodes
from telecine_components.training.watchdog import FolderStore, RankStore, RollCall, end_process

log = logging.getLogger(__name__)

MEETING_TIMEOUT_S = 300.0
STEP_TIMEOUT_S = 1800.0
CPU = torch.device("cpu")
LOOK_S = 0.05
FAREWELL_S = 20.0
"""For so long the others are waited for when all is done."""
MOURNING_S = 60.0
"""For so long a leader may go on after a follower died, to finish what needs no follower."""
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Ranks:
    """A process among those that train one model.

    Attributes:
        number: from 0, which leads.
        size: how many there are.
        device: what this one computes on.
        board: where they leave words for each other; None for one that is alone.
    """

    number: int = 0
    size: int = 1
    device: torch.device = CPU
    board: RankStore | None = dataclasses.field(default=None, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.number == 0

    @property
    def roll_call(self) -> RollCall | None:
        """How a watchdog finds out which rank is to blame; None for one that is alone."""
        return RollCall(self.board, self.number, self.size) if self.board is not None else None

    def meet(self) -> None:
        """Wait for each other; every rank has to call it."""
        if self.size > 1:
            dist.barrier()

    def await_leader(self, deed: str) -> None:
        """Wait until rank 0 has called it too, for as long as that takes: :meth:`meet` gives up after half an hour.

        Args:
            deed: what rank 0 has done then, another one at each call; a file name.
        """
        if self.board is None:
            return
        if self.leads:
            self.board.set(deed, "")
        while not self.board.check([deed]):
            time.sleep(LOOK_S)

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
    num_processes: int,
    follow: Callable[..., None],
    *arguments: Any,
    nodes: Nodes | None = None,
    patience_s: float = MEETING_TIMEOUT_S,
    farewell_s: float = FAREWELL_S,
) -> Iterator[Ranks]:
    """Be the first rank of this node for the block, and start ``follow(ranks, *arguments)`` as its others.

    Args:
        num_processes: ranks of this node.
        follow: a function of a module, and its arguments plain data: they cross to other processes.
        patience_s: how long this rank waits for all others to come.
        farewell_s: how long it waits for them when all is done.

    Raises:
        RetryLater: a rank of this node was killed, or another node is gone; the others cannot go on without it.
        InputError: a rank that follows met one.
        RuntimeError: a rank that follows failed.
    """
    nodes = nodes or Nodes.from_environment()
    size, first = num_processes * nodes.count, num_processes * nodes.number
    if size == 1:
        yield Ranks(device=_device(0))
        return
    with tempfile.TemporaryDirectory(prefix="telecine-ranks-") as folder:
        place = nodes.address or f"file://{folder}/meeting"
        words = FolderStore(Path(folder) / "words")
        children = [_start(place, words, first, local, size, follow, arguments) for local in range(1, num_processes)]
        try:
            with _surviving(children, words, has_others=nodes.count > 1):
                board = _meet(place, first, size, children, patience_s)
                yield Ranks(first, size, _device(0), board)
                parted = _part_in_peace(board, first, size, farewell_s)
            _part(children, farewell_s if parted else 0.0)
        finally:
            _part(children, 0.0)


def _start(
    place: str,
    words: FolderStore,
    first: int,
    local: int,
    size: int,
    follow: Callable[..., None],
    arguments: Sequence[Any],
) -> BaseProcess:
    settings = (place, words, first + local, local, size, os.getpid())
    child = mp.get_context("spawn").Process(
        target=_be_a_follower, args=(*settings, follow, arguments), name=f"rank-{first + local}", daemon=True
    )
    child.start()
    return child


def _be_a_follower(
    place: str,
    words: FolderStore,
    number: int,
    local: int,
    size: int,
    parent: int,
    follow: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    """Whether to stop is rank 0's decision, which comes with the next step; so this process ignores the signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with(parent)
    os.environ["LOCAL_RANK"] = str(local)
    board = _meet(place, number, size)
    try:
        follow(Ranks(number, size, _device(local), board), *arguments)
        board.set(_done(number), "")
        dist.barrier()
    except RetryLater:
        return  # a stop, which all ranks decide together
    except InputError as error:
        words.set(f"rank-{number}", str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        words.set(f"rank-{number}", f"{type(error).__name__}: {error}")
        raise
    dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; where it cannot, a thread looks after the parent."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_look_after, args=(parent,), daemon=True).start()


def _look_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(RetryLater.exit_code)


def _meet(
    place: str,
    number: int,
    size: int,
    children: Sequence[BaseProcess] = (),
    patience_s: float = MEETING_TIMEOUT_S,
) -> RankStore:
    """Wait until every rank is here, then join them; returns the board for their words.

    Raises:
        RuntimeError: one of the children died on its way.
        RetryLater: not all ranks came in time.
    """
    board = _board(place, number, patience_s)
    board.set(f"here-{number}", "")
    deadline = time.monotonic() + patience_s
    while not board.check([f"here-{rank}" for rank in range(size)]):
        if dead := _dead(children):
            raise RuntimeError(f"{dead[0].name} did not come")
        if time.monotonic() > deadline:
            raise RetryLater(f"not all {size} ranks came within {patience_s:.0f} s; call again")
        time.sleep(0.02)
    _join(place, number, size)
    return board


def _board(place: str, number: int, patience_s: float) -> RankStore:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return FolderStore(Path(parts.path).parent / "board")
    timeout = timedelta(seconds=patience_s)
    try:
        # The group's own store has the same address: within rank 0 they share one server.
        store = TCPStore(
            str(parts.hostname),
            int(parts.port or 0),
            is_master=number == 0,
            timeout=timeout,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except dist.DistError as error:
        raise RetryLater(
            f"rank 0 was not at {parts.netloc} within {patience_s:.0f} s, it may still be reading the dataset; "
            f"call again ({str(error).partition(chr(10))[0][:200]})"
        ) from error
    board: RankStore = PrefixStore("telecine-board", store)
    return board


def _join(place: str, number: int, size: int) -> None:
    """Join the process group; several processes on one machine stay on its loopback."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not place.startswith("tcp://"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if dist.is_initialized():
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=STEP_TIMEOUT_S)
    dist.init_process_group(backend, init_method=place, rank=number, world_size=size, timeout=timeout)


@contextlib.contextmanager
def _surviving(children: Sequence[BaseProcess], words: FolderStore, *, has_others: bool) -> Iterator[None]:
    """Name the rank whose death is behind an error of communication, or behind the silence that follows it.

    Args:
        has_others: whether there are other nodes, of whose ranks nothing is known but that they do not answer.
    """
    over = threading.Event()
    threading.Thread(target=_mourn, args=(children, over), name="mourner", daemon=True).start()
    try:
        yield
    except RuntimeError as error:
        time.sleep(1.0)  # the connection breaks before the process is reaped
        if dead := _dead(children):
            raise _what_it_means(dead[0], words) from error
        if has_others and _is_of_communication(error):
            line = str(error).partition("\n")[0]
            raise RetryLater(f"another node is gone, or could not be reached; call again to go on ({line})") from error
        raise
    finally:
        over.set()


def _is_of_communication(error: RuntimeError) -> bool:
    """Gloo raises plain RuntimeErrors, which name its own source."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _mourn(children: Sequence[BaseProcess], over: threading.Event) -> None:
    """End this process some time after a follower was killed: what waits for the dead may wait for ever."""
    while not over.wait(0.2):
        connection.wait([child.sentinel for child in children], timeout=1.0)
        if (dead := _dead(children)) and _was_ended(dead[0]):
            if not over.wait(MOURNING_S):
                log.error("event=rank_died rank=%s exit=%s", dead[0].name, dead[0].exitcode)
                end_process("")
            return


def _dead(children: Sequence[BaseProcess]) -> list[BaseProcess]:
    """Who ended otherwise than well: first those that were killed, as the others fail for the lack of them."""
    return sorted(
        (child for child in children if child.exitcode not in (None, 0)), key=lambda each: not _was_ended(each)
    )


def _was_ended(child: BaseProcess) -> bool:
    """By a signal, or by its own watchdog."""
    return child.exitcode is not None and (child.exitcode < 0 or child.exitcode == RetryLater.exit_code)


def _what_it_means(dead: BaseProcess, words: FolderStore) -> Exception:
    if _was_ended(dead):
        return RetryLater(f"{dead.name} ended with {dead.exitcode}; call again to go on")
    told = words.get(dead.name).decode() if words.check([dead.name]) else f"it ended with {dead.exitcode}"
    return InputError(told) if dead.exitcode == InputError.exit_code else RuntimeError(f"{dead.name} failed: {told}")


def _part_in_peace(board: RankStore, number: int, size: int, patience_s: float) -> bool:
    """Wait for the other ranks when all is done; whether they came in time. What is done needs no rank that hangs.

    They come to the board before they meet: a group in which a meeting has begun and does not end cannot be left.
    """
    board.set(_done(number), "")
    deadline = time.monotonic() + patience_s
    while not board.check([_done(rank) for rank in range(size)]):
        if time.monotonic() > deadline:
            log.warning("event=ranks_not_parted waited_s=%.0f reason='a rank hangs after the last step'", patience_s)
            return False
        time.sleep(LOOK_S)
    dist.barrier()
    return True


def _done(number: int) -> str:
    """What a rank leaves on the board when it has nothing more to do."""
    return f"done-{number}"


def _part(children: Sequence[BaseProcess], patience_s: float) -> None:
    """End what is left: nobody waits for a rank that follows a leader who has given up."""
    deadline = time.monotonic() + patience_s
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
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
