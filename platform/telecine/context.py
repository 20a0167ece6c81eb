"""What a component's ``run(inputs, ctx)`` is given: its folder, its items and checkpoints, its tracker, its clock."""

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from telecine.reading import Folder, Reader
from telecine.storage import Store
from telecine.tracking import RunTracker
from telecine.work import address, attempts, items, runs, sources
from telecine.work.attempts import Attempt
from telecine.work.checkpoints import Checkpoint, Checkpoints
from telecine.work.digests import Digests
from telecine.work.items import Executor, Item, Items, Plain, Source, Stage

__all__ = ["Checkpoint", "Context", "Folder", "Item", "Source"]

LINE_EVERY_S = 10.0


@dataclasses.dataclass(kw_only=True)
class Context:
    """One attempt, seen from the component.

    Attributes:
        dir: local folder of the attempt. What lies in it when ``run`` returns is committed, so its bytes hold no
            time, no host and no absolute path.
        scratch: local folder that is thrown away.
        checkpoints: states that every attempt at this key shares.
        code_digest: of the component's code and all of ours that it imports; its version, for provenance.
        tracker: the MLflow run of this work.
        store: where everything lies; for what outlives an attempt, such as a service's answers.
    """

    component: str
    key: str
    run: str
    attempt: str
    dir: Path
    scratch: Path
    code_digest: str
    checkpoints: Checkpoints
    tracker: RunTracker
    store: Store
    _reader: Reader
    _digests: Digests
    _items: Items
    _attempt: Attempt
    _preempted: threading.Event
    _bar: "ProgressLine" = dataclasses.field(default_factory=lambda: ProgressLine())

    @property
    def stop_requested(self) -> bool:
        """Whether to save and raise ``RetryLater``: SIGTERM came, or another attempt has already committed."""
        return self._preempted.is_set() or self._attempt.stop.is_set()

    def fetch(self, uri: str) -> Path:
        """Local, read-only path of an artifact; downloaded where the store is remote."""
        return self._reader.fetch(uri)

    def path(self, store_path: str) -> Path:
        """Local, read-only path of a file or folder named relative to the store's root."""
        return self._reader.path(store_path)

    def folder(self, uri: str) -> Folder:
        """A folder whose files are fetched one by one, where and while they are used."""
        return Folder(uri, store_uri=self.store.uri, home=self._digests.home)

    def items(
        self, sources: Sequence[Source], process: Callable[[Source, Path], dict[str, Any]], *, stage: str = "items"
    ) -> list[Item]:
        """Process each source once, ever, one after the other in this process; see :mod:`telecine.work.items`."""
        return items.over(
            self._items,
            sources,
            [Plain(stage, process)],
            progress=self.progress,
            stopping=lambda: self.stop_requested,
        )

    def stream(
        self,
        sources: Sequence[Source],
        stages: Sequence[Stage],
        executor: Executor,
        values: Callable[[], Mapping[str, float]] = dict,
    ) -> list[Item]:
        """Pass each source through all stages once, ever, by an executor; the items of the last stage.

        ``values`` are told with the progress.
        """
        return items.handed_over(
            self._items,
            sources,
            stages,
            executor,
            progress=lambda done, total: self.progress(done, total, **values()),
            stopping=lambda: self.stop_requested,
        )

    def declare_sources(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Say which files the output was made of, one row a clip; see :mod:`telecine.work.sources`."""
        sources.write(self.dir / sources.FILE, rows)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, or of a folder's names and bytes."""
        return self._digests.tree(path)

    def progress(self, done: int, total: int, **values: float) -> None:
        """Say how far the work is; cheap enough for every step."""
        state = self._attempt.progress
        state.advance(done, total, values)
        self._attempt.log.progress(done, total, values)
        self._bar.show(self.component, done, total, state.eta_s, values)

    def tell_ledger(self, document: Callable[[], dict[str, Any]]) -> None:
        """Have every heartbeat write what this returns, where the time went; it is called in another thread."""
        self._attempt.ledger = document

    def save_state(self) -> None:
        """Write the heartbeat, the ledger and the log at once, before the process is ended the hard way."""
        self._attempt.beat()
        self._attempt.log.save()

    def attempt_state(self) -> dict[str, Any]:
        """Who runs this attempt and where, and when it was submitted, placed and started, in seconds or None."""
        return self._attempt.born

    def earlier_attempts(self) -> list[dict[str, Any]]:
        """Last states, ledgers included, of the attempts that this one goes on from, the oldest first."""
        return attempts.earlier(self.store, f"work/{self.component}/{self.key}", self.attempt)

    def producer(self, uri: str) -> dict[str, Any]:
        """Commit record of the work that made an artifact of this store; empty for anything else."""
        path = self.store.path_of(uri)
        return (address.producer(path, self.store) or {}) if path else {}

    def run_report(self) -> list[dict[str, Any]]:
        """What each task of this run has met so far: decision, reason, seconds, MLflow run."""
        return [dataclasses.asdict(pointer) for pointer in runs.pointers(self.store, self.run)]


class ProgressLine:
    """A bar that rewrites itself in a terminal, a line now and then anywhere else."""

    def __init__(self) -> None:
        self._shown = 0.0

    def show(self, name: str, done: int, total: int, eta_s: float | None, values: dict[str, float]) -> None:
        """Print progress to stderr, at most ten times a second in a terminal, every ten seconds in a log."""
        tty = sys.stderr.isatty()
        now, finished = time.monotonic(), done >= total
        if not finished and now - self._shown < (0.1 if tty else LINE_EVERY_S):
            return
        self._shown = now
        eta = "" if eta_s is None or finished else f" eta={eta_s:.0f}s"
        extra = "".join(f" {key}={value:.4g}" for key, value in values.items())
        percent = 100 * done / max(total, 1)
        if tty:
            filled = int(percent / 5)
            bar = f"[{'#' * filled}{'.' * (20 - filled)}]"
            print(f"\r{name} {bar} {done}/{total}{eta}{extra}\x1b[K", end="\n" if finished else "", file=sys.stderr)
        else:
            print(
                f"event=progress component={name} done={done}/{total} percent={percent:.0f}{eta}{extra}",
                file=sys.stderr,
            )
