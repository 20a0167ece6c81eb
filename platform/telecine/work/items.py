"""Items: the parts of a batch, each committed once and shared by every key, run and attempt.

An item's address is the component, the stage, the code, the parameters that matter and the digest of its source.
Adding five files therefore redoes five, and a changed threshold redoes what it touches.

A batch passes through one stage or several. Whoever makes an item commits it: this process, or others that an executor
gives the :class:`Batch` to. What is committed is not handed out again.
"""

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from telecine.errors import BadData, RetryLater
from telecine.storage import Store, to_json
from telecine.work import commits
from telecine.work.digests import Digests

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """What an item is made of.

    Attributes:
        name: a label for people.
        digest: of its bytes.
        params: what else decides the result.
        given: what else the process is to have; ``digest`` and ``params`` account for it. After the first stage it is
            the :class:`Item` of the stage before.
    """

    name: str
    digest: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: Any = None


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

    @property
    def digest(self) -> str:
        """Of what it holds, wherever it lies."""
        return hashlib.sha256(to_json([self.value, self.reason, self.files])).hexdigest()


class Stage(Protocol):
    """One step on each item; ``name`` and ``params`` are in the item's address."""

    @property
    def name(self) -> str:
        """Of the stage, within its component."""

    @property
    def params(self) -> Mapping[str, Any]:
        """What decides its results, beside the source."""

    def process(self, source: Source, out_dir: Path, /) -> dict[str, Any]:
        """Make the item's value, and its files in ``out_dir``; raises :class:`BadData`."""


@dataclasses.dataclass(frozen=True)
class Plain:
    """A function as a stage."""

    name: str
    process: Callable[[Source, Path], dict[str, Any]]
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """How a batch's items are made and where they are committed: a plain value that other processes can be given."""

    store_uri: str
    home: Path
    component: str
    source_digest: str
    attempt: str
    force: bool
    stages: Sequence[Stage]

    def open(self, scratch: Path) -> "Items":
        """The items, from where the caller is."""
        return Items(
            Store(self.store_uri),
            Digests(self.home),
            component=self.component,
            source_digest=self.source_digest,
            attempt=self.attempt,
            scratch=scratch,
            force=self.force,
        )


class Executor(Protocol):
    """Makes items in other processes."""

    def __call__(
        self, batch: Batch, sources: Mapping[int, Source], scratch: Path, stopping: Callable[[], bool]
    ) -> Iterator[int]:
        """Yield the number of each source once all its items are committed; end early once ``stopping``."""


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
        self.scratch, self._force = scratch, force
        self.records: list[dict[str, Any]] = []
        self.num_reused = 0

    def batch(self, stages: Sequence[Stage]) -> Batch:
        """What others need to make these items."""
        return Batch(
            store_uri=self._store.uri,
            home=self._digests.home,
            component=self._component,
            source_digest=self._source_digest,
            attempt=self._attempt,
            force=self._force,
            stages=stages,
        )

    def one(self, source: Source, stage: Stage) -> Item:
        """The committed item for ``source``; made now unless an intact one stands."""
        path = self._path(source, stage)
        record = self._standing(f"{path}/commit.json")
        if record is None:
            record = self._make(source, stage, path)
        else:
            self.num_reused += 1
        return self._noted(source, path, record)

    def through(self, source: Source, stages: Sequence[Stage]) -> Item:
        """The item of the last stage, or of the one that found the source unusable."""
        for stage in stages:
            item = self.one(source, stage)
            if item.reason is not None:
                break
            source = following(source, item)
        return item

    def look(self, source: Source, stages: Sequence[Stage]) -> Item | None:
        """As :meth:`through`, but None where something is yet to be made."""
        found = []
        for stage in stages:
            path = self._path(source, stage)
            record = self._standing(f"{path}/commit.json")
            if record is None:
                return None
            found.append((source, path, record))
            if record["reason"] is not None:
                break
            source = following(source, _item(source, record))
        return [self._noted(*each) for each in found][-1]

    def refuse(self, source: Source, stages: Sequence[Stage], reason: str) -> Item:
        """Commit that a source is unusable, for the first stage that has no item of it."""

        def bad(_: Source, __: Path) -> dict[str, Any]:
            raise BadData(reason)

        return self.through(source, [Plain(stage.name, bad, stage.params) for stage in stages])

    def _noted(self, source: Source, path: str, record: dict[str, Any]) -> Item:
        self.records.append({"path": path, "files": record["files"], "attempt": record["attempt"]})
        return _item(source, record)

    def _path(self, source: Source, stage: Stage) -> str:
        params = {**source.params, **stage.params}
        parts = [self._component, stage.name, self._source_digest, params, source.digest]
        return f"work/{self._component}/items/{hashlib.sha256(to_json(parts)).hexdigest()[:32]}"

    def _standing(self, commit_path: str) -> dict[str, Any] | None:
        """An intact record; where work is redone by force, one that this very attempt made."""
        record = commits.read(self._store, commit_path)
        if record is None or (self._force and record["attempt"] != self._attempt):
            return None
        broken = commits.broken_files(self._store, record, self._digests)
        if broken:
            log.warning("event=item_broken path=%s problem=%r", commit_path, str(broken[0]))
            commits.quarantine(self._store, commit_path, record)
            return None
        return record

    def _make(self, source: Source, stage: Stage, path: str) -> dict[str, Any]:
        started = time.monotonic()
        out_dir = self.scratch / path.rpartition("/")[2]
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        value, reason = {}, None
        try:
            value = stage.process(source, out_dir)
        except BadData as bad:
            reason = bad.reason
        folder = f"{path}/{self._digests.tree(out_dir)[:16]}"
        files = self._store_files(out_dir, folder)
        record = {
            "attempt": self._attempt,
            "folder": folder,
            "files": files,
            "value": value,
            "reason": reason,
            "source": {"name": source.name, "digest": source.digest, "params": {**source.params, **stage.params}},
            "seconds": round(time.monotonic() - started, 3),
        }
        return commits.publish(self._store, f"{path}/commit.json", record, replace=self._force)

    def _store_files(self, out_dir: Path, prefix: str) -> dict[str, Any]:
        """Copy an item's files to a folder named by their content: whoever overwrites one writes the same bytes."""
        files = commits.describe_files(out_dir, prefix, self._digests)
        commits.upload_files(self._store, out_dir, prefix, files)
        shutil.rmtree(out_dir)
        return files


def following(source: Source, item: Item) -> Source:
    """What the next stage makes its item of."""
    return dataclasses.replace(source, digest=item.digest, given=item)


def _item(source: Source, record: dict[str, Any]) -> Item:
    folder = str(record["folder"])
    files = {name.removeprefix(folder + "/"): known["sha256"] for name, known in record["files"].items()}
    return Item(source.name, folder, record["value"], record["reason"], files)


def over(
    items: Items,
    sources: Sequence[Source],
    stages: Sequence[Stage],
    *,
    progress: Callable[[int, int], None],
    stopping: Callable[[], bool],
) -> list[Item]:
    """Every source's item, in order, made here one after the other; stops between two items when asked to."""
    done: list[Item] = []
    for source in sources:
        if stopping():
            raise _stopped(len(done), len(sources))
        done.append(_told(items.through(source, stages)))
        progress(len(done), len(sources))
    return done


def handed_over(
    items: Items,
    sources: Sequence[Source],
    stages: Sequence[Stage],
    executor: Executor,
    *,
    progress: Callable[[int, int], None],
    stopping: Callable[[], bool],
) -> list[Item]:
    """Every source's item, in order; an executor has those made that do not stand.

    Raises:
        RetryLater: it stopped early; what is committed stays.
    """
    batch = items.batch(stages)
    found = {number: item for number, source in enumerate(sources) if (item := items.look(source, stages))}
    items.num_reused += len(found)
    todo = {number: source for number, source in enumerate(sources) if number not in found}
    progress(len(found), len(sources))
    if todo and not stopping():
        for number in executor(batch, todo, items.scratch, stopping):
            made = items.look(sources[number], stages)
            if made is None:
                raise RetryLater(f"{sources[number].name}: its item was committed and is gone; call again")
            found[number] = _told(made)
            progress(len(found), len(sources))
    if len(found) < len(sources):
        raise _stopped(len(found), len(sources))
    return [found[number] for number in range(len(sources))]


def _told(item: Item) -> Item:
    if item.reason is not None:
        log.warning("event=bad_item source=%r reason=%r", item.name, item.reason)
    return item


def _stopped(num_done: int, num_sources: int) -> RetryLater:
    return RetryLater(f"stopped after {num_done} of {num_sources} items; the same call continues there")
