"""Items: the parts of a batch, each committed once and shared by every key, run and attempt.

An item's address is the component, the stage, the code, the parameters that matter and the digest of its source.
Adding five files therefore redoes five, and a changed threshold redoes what it touches.
"""

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from telecine.errors import BadData, RetryLater
from telecine.storage import Store, to_json
from telecine.work import commits
from telecine.work.digests import Digests

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """What an item is made of: a label for people, the digest of its bytes, and what else decides the result."""

    name: str
    digest: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Item:
    """One committed item.

    Attributes:
        path: folder of its files, relative to the store's root; equal for equal work.
        value: what ``process`` returned.
        reason: why the source is unusable, or None.
        files: SHA-256 of each file, by its name below ``path``.
    """

    name: str
    path: str
    value: dict[str, Any]
    reason: str | None
    files: dict[str, str]


class Items:
    """Runs a function over sources and commits each result by itself."""

    def __init__(
        self,
        store: Store,
        digests: Digests,
        *,
        component: str,
        source_digest: str,
        attempt: str,
        scratch: Path,
        force: bool,
    ) -> None:
        self._store, self._digests = store, digests
        self._component, self._source_digest, self._attempt = component, source_digest, attempt
        self._scratch, self._force = scratch, force
        self.records: list[dict[str, Any]] = []
        self.num_reused = 0

    def one(self, source: Source, process: Callable[[Source, Path], dict[str, Any]], stage: str) -> Item:
        """The committed item for ``source``; made now unless an intact one stands."""
        path = self._path(source, stage)
        record = self._standing(f"{path}/commit.json")
        if record is None:
            record = self._make(source, process, path)
        else:
            self.num_reused += 1
        self.records.append({"path": path, "files": record["files"], "attempt": record["attempt"]})
        folder = str(record["folder"])
        files = {name.removeprefix(folder + "/"): known["sha256"] for name, known in record["files"].items()}
        return Item(source.name, folder, record["value"], record["reason"], files)

    def _path(self, source: Source, stage: str) -> str:
        parts = [self._component, stage, self._source_digest, dict(source.params), source.digest]
        return f"work/{self._component}/items/{hashlib.sha256(to_json(parts)).hexdigest()[:32]}"

    def _standing(self, commit_path: str) -> dict[str, Any] | None:
        record = None if self._force else commits.read(self._store, commit_path)
        if record is None:
            return None
        broken = commits.broken_files(self._store, record, self._digests)
        if broken:
            log.warning("event=item_broken path=%s problem=%r", commit_path, str(broken[0]))
            commits.quarantine(self._store, commit_path, record)
            return None
        return record

    def _make(self, source: Source, process: Callable[[Source, Path], dict[str, Any]], path: str) -> dict[str, Any]:
        started = time.monotonic()
        out_dir = self._scratch / path.rpartition("/")[2]
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        value, reason = {}, None
        try:
            value = process(source, out_dir)
        except BadData as bad:
            reason = bad.reason
            log.warning("event=bad_item source=%r reason=%r", source.name, reason)
        folder = f"{path}/{self._digests.tree(out_dir)[:16]}"
        files = self._store_files(out_dir, folder)
        record = {
            "attempt": self._attempt,
            "folder": folder,
            "files": files,
            "value": value,
            "reason": reason,
            "source": {"name": source.name, "digest": source.digest, "params": dict(source.params)},
            "seconds": round(time.monotonic() - started, 3),
        }
        return commits.publish(self._store, f"{path}/commit.json", record, replace=self._force)

    def _store_files(self, out_dir: Path, prefix: str) -> dict[str, Any]:
        """Copy an item's files to a folder named by their content: whoever overwrites one writes the same bytes."""
        files = commits.describe_files(out_dir, prefix, self._digests)
        commits.upload_files(self._store, out_dir, prefix, files)
        shutil.rmtree(out_dir)
        return files


def over(
    items: Items,
    sources: Sequence[Source],
    process: Callable[[Source, Path], dict[str, Any]],
    *,
    stage: str,
    progress: Callable[[int, int], None],
    stopping: Callable[[], bool],
) -> list[Item]:
    """Every source's item, in order; stops between two items when asked to."""
    done: list[Item] = []
    for source in sources:
        if stopping():
            raise RetryLater(f"stopped after {len(done)} of {len(sources)} items; the same call continues there")
        done.append(items.one(source, process, stage))
        progress(len(done), len(sources))
    return done
