"""Attempts: one execution of one piece of work, alive as long as its heartbeat is young."""

import dataclasses
import functools
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from telecine.errors import RetryLater, TelecineError
from telecine.storage import Store
from telecine.work.logbook import AttemptLog

log = logging.getLogger(__name__)

BEAT_S = {"local": 0.5, "remote": 5.0}
"""Seconds between two heartbeats, by how far the store is."""
LEASE_S = 120.0
"""An attempt on another machine whose last beat is older than this is taken for dead, and another one leads."""
GRACE_S = 86400.0
"""For so long it may yet wake up: its files stay, and after a longer sleep it must not commit them."""


def new_id() -> str:
    """Sortable by time, unique among racers."""
    return f"{time.strftime('%Y%m%dt%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


@dataclasses.dataclass
class Progress:
    """How far an attempt is, in units of its own choice."""

    done: int = 0
    total: int = 0
    started: float = dataclasses.field(default_factory=time.time)
    restored: int | None = None
    values: dict[str, float] = dataclasses.field(default_factory=dict)

    def advance(self, done: int, total: int, values: dict[str, float]) -> None:
        """Take a new reading; what was done before the first one came from a checkpoint or a cache."""
        if self.restored is None:
            self.restored, self.started = done, time.time()
        self.done, self.total, self.values = done, total, values

    @property
    def ratio(self) -> float:
        """Share done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this attempt's mean speed, or None before it has done anything."""
        fresh = self.done - (self.restored or 0)
        return (time.time() - self.started) / fresh * (self.total - self.done) if fresh else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """Seconds since the epoch; None where nobody said.

    Attributes:
        started: when the process began, its imports before it.
        submitted: when the work was asked for.
        placed: when a machine was found, and began to get an image and to make a container of it.
    """

    started: float
    submitted: float | None = None
    placed: float | None = None


class Attempt:
    """One attempt's folder, and the thread that keeps its lease.

    Args:
        superseded: called at each beat; once it returns True the attempt's ``stop`` event is set.
        beginning: when it was asked for and began; this moment where that is not given.
        forced: it redoes the work, so that what was done before is no part of it.

    Attributes:
        ledger: gives the document that each beat writes as ``ledger``; called in the heartbeat's thread.
    """

    def __init__(
        self,
        store: Store,
        work_prefix: str,
        *,
        run: str,
        task: str,
        superseded: Callable[[], bool],
        beginning: Beginning | None = None,
        forced: bool = False,
    ) -> None:
        self.id = new_id()
        self.prefix = f"{work_prefix}/attempts/{self.id}"
        self._work_prefix = work_prefix
        self.state_path = f"{work_prefix}/beats/{self.id}.json"
        self.progress = Progress()
        self.stop = threading.Event()
        self._store = store
        self.superseded = superseded
        self.log = AttemptLog(store, f"{work_prefix}/logs/{self.id}.log")
        self._born: dict[str, Any] = {"attempt": self.id, "run": run, "task": task, "forced": forced}
        self._born |= {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id(), "birth": birth(os.getpid())}
        self._born |= dataclasses.asdict(beginning or Beginning(started=time.time()))
        self.ledger: Callable[[], dict[str, Any]] | None = None
        self._beaten, self._longest_sleep_s = time.time(), 0.0
        self._closing = threading.Event()
        self._beat_s = BEAT_S["local" if store.root is not None else "remote"]
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> "Attempt":
        self.beat()
        self.log.open(**{name: self._born[name] for name in ("run", "task", "attempt", "host", "pid")})
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._closing.set()
        self._thread.join()
        self.log.finish(error)
        self._try_to_beat(ended=time.time())

    def check_lease(self) -> None:
        """Raise :class:`RetryLater` after a sleep in which this attempt's files may have been collected."""
        self.beat()
        if self._longest_sleep_s > GRACE_S / 2:
            raise RetryLater(f"the process was stopped for {self._longest_sleep_s / 3600:.0f} h; call again to go on")

    @property
    def born(self) -> dict[str, Any]:
        """What its state says from the first beat on: who runs it where, and the times of :class:`Beginning`."""
        return dict(self._born)

    def rivals(self) -> set[str]:
        """Other attempts at the same work that live."""
        return {s["attempt"] for s in states(self._store, self._work_prefix) if is_alive(s)} - {self.id}

    def beat(self, **more: Any) -> None:
        """Write the attempt's state: who runs it, how far it is, and that it lives."""
        now = time.time()
        self._longest_sleep_s = max(self._longest_sleep_s, now - self._beaten)
        self._beaten = now
        told = {"ledger": self.ledger()} if self.ledger else {}
        state = self._born | {"beat": now, "progress": dataclasses.asdict(self.progress)} | told | more
        self._store.write_json(self.state_path, state)

    def _keep_beating(self) -> None:
        while not self._closing.wait(self._beat_s):
            self._try_to_beat()

    def _try_to_beat(self, **more: Any) -> None:
        """A missed beat costs at most the lease; it must neither end the work nor hide how it ended."""
        try:
            self.beat(**more)
            self.log.save()
            if not more and self.superseded():
                self.stop.set()
        except (OSError, TelecineError) as error:
            log.warning("event=heartbeat_failed error=%r", str(error))


def states(store: Store, work_prefix: str) -> list[dict[str, Any]]:
    """Every attempt's last written state, oldest attempt first, with ``age_s``, seconds since it was written.

    The age is read on the store's clock: an attempt does not die of living on a machine whose clock is wrong.
    """
    found = [(entry, store.read_json(entry.path)) for entry in store.entries(f"{work_prefix}/beats")]
    now = store.now() if found else 0.0
    return [state | {"age_s": now - entry.modified.timestamp()} for entry, state in found if state]


def earlier(store: Store, work_prefix: str, attempt: str) -> list[dict[str, Any]]:
    """States of the attempts whose work one goes on from, in the order in which they began.

    Those that redid it by force begin anew. Left out is what still lives on this machine; elsewhere one may have died
    a moment ago, and its lease does not say.
    """
    told = [each for each in states(store, work_prefix) if "started" in each]
    known = sorted(told, key=lambda each: (each["started"], each["attempt"]))
    anew = max((index for index, each in enumerate(known) if each["forced"]), default=0)
    before = [each for each in known[anew:] if each["attempt"] != attempt]
    return [each for each in before if not (_is_here(each) and is_alive(each))]


def state(store: Store, work_prefix: str, attempt: str) -> dict[str, Any] | None:
    """One attempt's last written state with its ``age_s``, or None; see :func:`states`."""
    path = f"{work_prefix}/beats/{attempt}.json"
    entry, found = store.head(path), store.read_json(path)
    return found | {"age_s": store.now() - entry.modified.timestamp()} if entry and found else None


def is_alive(state: dict[str, Any]) -> bool:
    """Whether an attempt is still at work: by its process on this machine, by its last beat elsewhere.

    A process of this machine that was stopped lives, however old its beat: it will go on where it was.
    """
    if is_known_dead(state):
        return False
    return _is_here(state) or float(state["age_s"]) <= LEASE_S


def is_known_dead(state: dict[str, Any]) -> bool:
    """Whether an attempt is over for certain: it said so, or its process on this machine is gone."""
    return "ended" in state or (_is_here(state) and birth(int(state["pid"])) != state.get("birth"))


def _is_here(state: dict[str, Any]) -> bool:
    """Two machines may have one name; their boots differ."""
    return (state["host"], state.get("boot")) == (socket.gethostname(), boot_id())


@functools.cache
def boot_id() -> str:
    """What the kernel drew when this machine was started; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def birth(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; with the number it names one process for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(") ")[2].split()
    return None if state == "Z" else int(fields[18])


def process_started() -> float:
    """When this process began, to a hundredth of a second; this moment where the system does not say."""
    ticks = birth(os.getpid())
    if ticks is None:
        return time.time()
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
