"""Which attempts live, as one scrape after another sees the store: few requests, and none for what did not change.

A scrape lists ``runs/`` (one request for a thousand objects), reads the pointers whose entity tag is new, and one
heartbeat for each task that says it is running. The first scrape reads every pointer once.
"""

import dataclasses
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from telecine.storage import Entry, Store
from telecine.work import attempts
from telecine.work.runs import Pointer

FRESH_S = 5.0
"""A scrape within this time of another is answered from memory."""
MAX_LIVING = 200
"""Attempts shown at once, the newest first: each makes series of its own."""
MAX_CAUSES = 16
"""Causes shown of an attempt's ledger; a trainer has thirteen."""
NUM_READERS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Living:
    """One attempt at work.

    Attributes:
        age_s: seconds since its last heartbeat, on the store's clock.
        causes_s: seconds by cause of its ledger, earlier attempts at the same work included; empty where it has none.
        cause: what it spends its time on.
    """

    run: str
    task: str
    component: str
    progress: attempts.Progress
    age_s: float
    causes_s: dict[str, float] = dataclasses.field(default_factory=dict)
    cause: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One look at the store.

    Attributes:
        ended: by (component, decision), tasks that ended since this process began to look: what had ended by then is
            there as zero, so that a restart counts nothing again and the next one is seen as a rise.
        num_lost: tasks that say they are running and whose attempt is dead.
        num_hidden: living attempts beyond :data:`MAX_LIVING`.
    """

    living: list[Living]
    ended: dict[tuple[str, str], int]
    num_lost: int
    num_hidden: int


class Watch:
    """Looks at the store, at most every ``fresh_s`` seconds."""

    def __init__(self, store: Store, *, fresh_s: float = FRESH_S) -> None:
        self._store, self._fresh_s = store, fresh_s
        self._pointers: dict[str, tuple[str | None, Pointer]] = {}
        self._ended: Counter[tuple[str, str]] = Counter()
        self._view: View | None = None
        self._looked = 0.0
        self._looking = threading.Lock()

    def view(self) -> View:
        """The newest look; raises what the store raises."""
        with self._looking:
            if self._view is None or time.monotonic() - self._looked > self._fresh_s:
                self._view = self._look()
                self._looked = time.monotonic()
            return self._view

    def _look(self) -> View:
        entries = [entry for entry in self._store.entries("runs") if "/tasks/" in entry.path]
        fresh = [entry for entry in entries if self._tag(entry.path) != _tag(entry)]
        with ThreadPoolExecutor(NUM_READERS) as readers:
            records = list(readers.map(lambda entry: self._store.read_json(entry.path), fresh))
            self._take(entries, fresh, records)
            running = [
                (path, pointer) for path, (_, pointer) in self._pointers.items() if pointer.decision == "running"
            ]
            found = list(readers.map(lambda each: self._living(*each), running))
        living = [one for one in found if one is not None]
        return View(
            living=living[:MAX_LIVING],
            ended=dict(self._ended),
            num_lost=len(found) - len(living),
            num_hidden=max(0, len(living) - MAX_LIVING),
        )

    def _take(self, entries: list[Entry], fresh: list[Entry], records: list[Any]) -> None:
        """Remember the new pointers, the newest task first, and count those that ended after the first look."""
        for entry, record in zip(fresh, records, strict=True):
            if record is None:
                continue
            pointer = Pointer(**record)
            self._pointers[entry.path] = (_tag(entry), pointer)
            if pointer.decision != "running":
                self._ended[(pointer.component, pointer.decision)] += int(self._view is not None)
        there = {entry.path for entry in entries}
        kept = [(path, known) for path, known in self._pointers.items() if path in there]
        self._pointers = dict(sorted(kept, key=lambda each: -each[1][1].started))

    def _living(self, path: str, pointer: Pointer) -> Living | None:
        prefix = f"work/{pointer.component}/{pointer.key}"
        state = attempts.state(self._store, prefix, str(pointer.attempt))
        if state is None or not attempts.is_alive(state):
            return None
        ledger = state.get("ledger") or {}
        return Living(
            run=path.split("/")[1],
            task=pointer.task,
            component=pointer.component,
            progress=attempts.Progress(**state["progress"]),
            age_s=float(state["age_s"]),
            causes_s=dict(sorted(ledger.get("total", {}).items())[:MAX_CAUSES]),
            cause=ledger.get("cause"),
        )

    def _tag(self, path: str) -> str | None:
        return self._pointers[path][0] if path in self._pointers else None


def _tag(entry: Entry) -> str:
    return entry.etag or f"{entry.modified.timestamp()}-{entry.size}"
