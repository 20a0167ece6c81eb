"""Checkpoints: states of one piece of work from which any attempt at it can go on."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from telecine.storage import Store
from telecine.work import commits
from telecine.work.digests import Digests
from telecine.work.retention import Keep

Write = Callable[[Path], Mapping[str, str] | None]
"""Fills a folder, and may return the SHA-256 of files in it by relative name, taken while they were written."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A committed, verified state. ``dir`` is local and read-only."""

    step: int
    dir: Path


class Checkpoints:
    """The checkpoints of one address, shared by all its attempts.

    ``<work>/checkpoints/<step>/commit.json`` names the files, which lie in a folder of the attempt that wrote
    them: two racing attempts never write the same file, and a torn write is never named by a commit.

    Args:
        before_commit: called before a commit is made, to settle what a resumed attempt will not do again; what it
            returns could not be settled, is kept with the checkpoint and given to ``resume``.
        resume: called with what was kept, by an attempt that goes on from the checkpoint.
        superseded: whether the work was committed meanwhile; nothing is then saved or pruned any more.
        rivals: other attempts that live, and may be reading; while there are any nothing is pruned.
    """

    def __init__(
        self,
        store: Store,
        digests: Digests,
        *,
        work_prefix: str,
        attempt: str,
        scratch: Path,
        before_commit: Callable[[], Sequence[Any]],
        resume: Callable[[Sequence[Any]], None] = lambda _: None,
        superseded: Callable[[], bool] = lambda: False,
        rivals: Callable[[], Set[str]] = frozenset,
    ) -> None:
        self._store, self._digests = store, digests
        self._root = f"{work_prefix}/checkpoints"
        self._attempt, self._scratch = attempt, scratch
        self._before_commit, self._resume = before_commit, resume
        self._superseded, self._rivals = superseded, rivals

    def steps(self) -> list[int]:
        """Committed steps, ascending; whether they are intact shows when they are read."""
        names = (entry.path.split("/") for entry in self._store.entries(self._root))
        return sorted(int(parts[-2]) for parts in names if parts[-1] == "commit.json")

    def latest(self, counts: Callable[[int], bool] = lambda _: True) -> Checkpoint | None:
        """The newest intact checkpoint of a step that counts, or None. Broken ones are moved out of the way."""
        for step in filter(counts, reversed(self.steps())):
            path = f"{self._root}/{step:08d}/commit.json"
            record = commits.read(self._store, path)
            if record is None:
                continue
            if not commits.broken_files(self._store, record, self._digests):
                self._resume(record.get("unsettled") or ())
                return Checkpoint(step, self._local(record))
            commits.quarantine(self._store, path, record)
        return None

    def save(self, step: int, write: Write, *, score: float | None = None) -> None:
        """Commit what ``write`` puts into a folder; nothing to do where the step already has a commit.

        Args:
            score: how good the state is, lower is better, for :meth:`prune`; one that is not finite counts as none.
        """
        path = f"{self._root}/{step:08d}/commit.json"
        if self._superseded() or self._store.head(path) is not None:
            return
        prefix = f"{self._root}/{step:08d}/{self._attempt}"
        folder = self._store.local(prefix) or self._scratch / f"checkpoint-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, sha256 in (write(folder) or {}).items():
            self._digests.remember(folder / name, sha256)
        files = commits.describe_files(folder, prefix, self._digests)
        commits.upload_files(self._store, folder, prefix, files)
        if self._store.local(prefix) is None:
            shutil.rmtree(folder)  # the scratch folder would hold every checkpoint of the run at once
        record = {"attempt": self._attempt, "step": step, "folder": prefix, "files": files}
        if score is not None and math.isfinite(score):
            record["score"] = score
        commits.publish(self._store, path, record | {"unsettled": self._before_commit()})

    def prune(self, keep: Keep) -> None:
        """Remove what a policy lets go; the commit goes first, so that no reader meets half a checkpoint."""
        steps = [] if self._superseded() or self._rivals() else self.steps()
        stay = keep.of(steps, self._scores(steps) if keep.best else {})
        for step in (step for step in steps if step not in stay):
            commits.remove_folder(self._store, f"{self._root}/{step:08d}")

    def _scores(self, steps: Sequence[int]) -> dict[int, float]:
        records = {step: commits.read(self._store, f"{self._root}/{step:08d}/commit.json") for step in steps}
        return {step: float(record["score"]) for step, record in records.items() if record and "score" in record}

    def clear(self) -> None:
        """Remove every checkpoint, for work that is redone by force."""
        commits.remove_folder(self._store, self._root)

    def _local(self, record: commits.Record) -> Path:
        local = self._store.local(record["folder"])
        if local is not None:
            return local
        target = self._scratch / f"restore-{record['step']}"
        for name, known in record["files"].items():
            self._store.download(name, target / name.removeprefix(record["folder"] + "/"), sha256=known["sha256"])
        return target
