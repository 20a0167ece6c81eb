"""Attempts: one execution of one piece of work, alive as long as its heartbeat is young."""

import dataclasses
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from telecine.errors import TelecineError
from telecine.storage import Store

log = logging.getLogger(__name__)

BEAT_S = {"local": 0.5, "remote": 5.0}
"""Seconds between two heartbeats, by how far the store is."""
LEASE_S = 120.0
"""An attempt whose last beat is older than this is dead: its files may be collected."""


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


class Attempt:
    """One attempt's folder, and the thread that keeps its lease.

    Args:
        superseded: called at each beat; once it returns True the attempt's ``stop`` event is set.
    """

    def __init__(self, store: Store, work_prefix: str, *, run: str, superseded: Callable[[], bool]) -> None:
        self.id = new_id()
        self.prefix = f"{work_prefix}/attempts/{self.id}"
        self.state_path = f"{work_prefix}/beats/{self.id}.json"
        self.progress = Progress()
        self.stop = threading.Event()
        self._store = store
        self._superseded = superseded
        self._born = {"attempt": self.id, "run": run, "host": socket.gethostname(), "pid": os.getpid()}
        self._closing = threading.Event()
        self._beat_s = BEAT_S["local" if store.root is not None else "remote"]
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> "Attempt":
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self.beat(ended=time.time())

    def beat(self, **more: Any) -> None:
        """Write the attempt's state: who runs it, how far it is, and that it lives."""
        state = self._born | {"beat": time.time(), "progress": dataclasses.asdict(self.progress)} | more
        self._store.write_json(self.state_path, state)

    def _keep_beating(self) -> None:
        while not self._closing.wait(self._beat_s):
            try:
                self.beat()
                if self._superseded():
                    self.stop.set()
            except (OSError, TelecineError) as error:
                log.warning("event=heartbeat_failed error=%r", str(error))


def states(store: Store, work_prefix: str) -> list[dict[str, Any]]:
    """Every attempt's last written state, oldest attempt first."""
    found = [store.read_json(entry.path) for entry in store.entries(f"{work_prefix}/beats")]
    return [state for state in found if state]


def is_alive(state: dict[str, Any]) -> bool:
    """Whether an attempt is still at work: by its process on this machine, by its last beat elsewhere."""
    if "ended" in state or time.time() - float(state["beat"]) > LEASE_S:
        return False
    return state["host"] != socket.gethostname() or _runs(int(state["pid"]))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
