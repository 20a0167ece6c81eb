"""One call of ``telecine run``: look up, attempt, commit, point. The same in a shell, a task, a container and a pod."""

import contextlib
import dataclasses
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from telecine import nodes, provenance, storage, tracking
from telecine.component import Component
from telecine.context import Context
from telecine.errors import InputError, RetryLater, TelecineError
from telecine.reading import Reader
from telecine.redaction import mask
from telecine.settings import Settings
from telecine.storage import Store
from telecine.work import address, beginning, commits, explain, runs, source
from telecine.work.address import Address
from telecine.work.attempts import Attempt
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine.work.items import Items

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a call met: its commit, and whether this very attempt made it."""

    decision: str
    reason: str
    commit: commits.Record
    outputs: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The one JSON document that crosses the process boundary."""
        known = ("component", "key", "attempt", "mlflow_run_id")
        return {"decision": self.decision, "reason": self.reason, "outputs": self.outputs} | {
            name: self.commit[name] for name in known
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One component on resolved inputs, within one task of one run."""

    component: Component
    inputs: Any
    run: str
    task: str
    settings: Settings
    force: bool = False
    key: str | None = None
    """What the caller found the content key to be, where it found one."""

    @property
    def values(self) -> dict[str, Any]:
        """Inputs as plain values, artifacts as URIs."""
        return {field.name: getattr(self.inputs, field.name) for field in dataclasses.fields(self.inputs)}


def look_up(call: Call, store: Store, digests: Digests) -> tuple[Address, Result | None, str]:
    """The call's address, its standing result if an intact one may be reused, and the reason in plain words."""
    where, result, problem = _standing(call, store, digests)
    return where, result, result.reason if result else problem or explain.why_new(store, where)


def _standing(call: Call, store: Store, digests: Digests) -> tuple[Address, Result | None, str]:
    """The call's address, its standing result if it may be reused, and what speaks against one that stands."""
    where = address.resolve(call.component, call.inputs, store=store, digests=digests, run=call.run)
    if call.force:
        return where, None, "redone because of --force"
    record = commits.read(store, where.commit_path)
    if record is None:
        return where, None, ""
    broken = commits.broken_files(store, record, digests)
    if broken:
        commits.quarantine(store, where.commit_path, record)
        return where, None, f"a committed file does not hold: {broken[0]}"
    return where, _result("reused", explain.why_reused(record), record, store), ""


@storage.disk_full()
def reuse(call: Call) -> tuple[Address, Result | None]:
    """Where a call's work lies, and its standing result, pointed to by its task; None if it has to be done.

    Why it has to be done is not asked: who does it asks.
    """
    store, digests = Store(call.settings.store_uri), Digests(call.settings.home)
    runs.register(store, call.run)
    where, result, _ = _standing(call, store, digests)
    if result is not None:
        _point(call, store, where, "reused", result.reason, record=result.commit)
        if store.head(where.commit_path) is None:  # gc was faster than the pointer
            return where, None
    return where, result


@storage.disk_full()
def execute(call: Call) -> Result:
    """Return the commit of a call, made now unless an intact one stands.

    Raises:
        InputError, RetryLater, HardwareFault: as the component raises them; whatever was committed stays.
    """
    store, digests = Store(call.settings.store_uri), Digests(call.settings.home)
    runs.register(store, call.run)
    started = time.monotonic()
    where, result, reason = look_up(call, store, digests)
    _check_key(call, where)
    if result is not None:
        _point(call, store, where, "reused", reason, record=result.commit)
        if store.head(where.commit_path) is not None:
            return result
        reason = "its commit was collected a moment ago"
    try:
        with tracking.translated(call.settings), storage.disk_full():
            result = _attempt(call, where, reason, store, digests)
    except BaseException as error:
        seconds = time.monotonic() - started
        try:
            _point(call, store, where, "failed", reason, error=error, seconds=seconds)
        except (TelecineError, OSError) as second:  # what went wrong first is what a person has to hear
            log.warning("event=pointer_failed error=%r", str(second))
        raise
    seconds = time.monotonic() - started
    _point(call, store, where, result.decision, reason, record=result.commit, seconds=seconds)
    return result


@storage.disk_full()
def follow(call: Call) -> None:
    """Do the part of a node that does not lead; nothing where the work has been done already."""
    store, digests = Store(call.settings.store_uri), Digests(call.settings.home)
    where, result, _ = _standing(call, store, digests)
    _check_key(call, where)
    if result is not None:
        return
    with _scratch() as scratch, _preemption():
        nodes.load_follower(call.component)(call.inputs, nodes.Follower(Reader(store, scratch)))


def _check_key(call: Call, where: Address) -> None:
    """Refuse to do other work than the caller waits for."""
    if call.key not in (None, where.key):
        raise InputError(
            f"{where.component}: this is the work {where.key}, and {call.key} was asked for: the code here is not the "
            "caller's, or an input has changed since; build the images from the caller's commit (make images)"
        )


def _attempt(call: Call, where: Address, reason: str, store: Store, digests: Digests) -> Result:
    """Run the component once and commit, or yield to whoever committed first."""

    def superseded() -> bool:
        return not call.force and store.head(where.commit_path) is not None

    lease = Attempt(
        store,
        where.prefix,
        run=call.run,
        task=call.task,
        superseded=superseded,
        beginning=beginning.of_attempt(store, where.prefix, run=call.run, task=call.task),
        forced=call.force,
    )
    with lease as attempt, _scratch() as scratch:
        log.info("event=start component=%s key=%s reason=%r", where.component, where.key, reason)
        _point(call, store, where, "running", reason, attempt=attempt.id)
        tracker = _tracker(call, where, attempt, store)
        with _preemption() as preempted, contextlib.closing(tracker):
            ctx = _context(call, where, attempt, store, digests, scratch, tracker, preempted)
            began = time.monotonic()
            try:
                entry = call.component.load()
                gc.enable()  # the command line leaves the collector off while everything is imported
                gc.freeze()
                outputs = entry(call.inputs, ctx)
            except Exception as error:
                winner = None if call.force else commits.read(store, where.commit_path)
                if winner is not None:
                    return _lost(store, attempt, winner, tracker)
                _give_up(tracker, stopped=isinstance(error, RetryLater))
                raise
        _check_unchanged(call, where, store, digests)
        record = _record(call, where, attempt, ctx, outputs, time.monotonic() - began, digests)
        commits.upload_files(store, ctx.dir, attempt.prefix, record["files"])
        attempt.check_lease()
        tracker.settle()
        standing = commits.publish(store, where.commit_path, record, replace=call.force)
        if standing["attempt"] != attempt.id:
            return _lost(store, attempt, standing, tracker)
        _log_outputs(tracker, record)
        tracking.close(tracker.client, tracker.run_id, succeeded=True)
        return _result("ran", reason, record, store)


def _context(
    call: Call,
    where: Address,
    attempt: Attempt,
    store: Store,
    digests: Digests,
    scratch: Path,
    tracker: tracking.RunTracker,
    preempted: threading.Event,
) -> Context:
    folder = store.local(attempt.prefix) or scratch / "attempt"
    folder.mkdir(parents=True)
    checkpoints = Checkpoints(
        store,
        digests,
        work_prefix=where.prefix,
        attempt=attempt.id,
        scratch=scratch,
        before_commit=tracker.settle,
        resume=tracker.resume,
        superseded=attempt.superseded,
        rivals=attempt.rivals,
    )
    if call.force:
        checkpoints.clear()
    code_digest = source.combined(where.modules)
    shared = Items(
        store,
        digests,
        component=where.component,
        source_digest=code_digest,
        attempt=attempt.id,
        scratch=scratch / "items",
        force=call.force,
    )
    return Context(
        component=where.component,
        key=where.key,
        run=call.run,
        attempt=attempt.id,
        dir=folder,
        scratch=scratch,
        code_digest=code_digest,
        checkpoints=checkpoints,
        tracker=tracker,
        store=store,
        _reader=Reader(store, scratch),
        _digests=digests,
        _items=shared,
        _attempt=attempt,
        _preempted=preempted,
    )


def _record(
    call: Call, where: Address, attempt: Attempt, ctx: Context, outputs: Any, seconds: float, digests: Digests
) -> commits.Record:
    if type(outputs) is not call.component.outputs:
        raise TypeError(f"{where.component}: run() must return {call.component.outputs}, got {type(outputs)}")
    files = commits.describe_files(ctx.dir, attempt.prefix, digests)
    return {
        "component": where.component,
        "key": where.key,
        "attempt": attempt.id,
        "run": call.run,
        "task": call.task,
        "address": dataclasses.asdict(where),
        "inputs": call.values,
        "outputs": commits.describe_outputs(call.component, outputs, attempt.prefix, files),
        "files": files,
        "items": ctx._items.records,
        "provenance": provenance.record(),
        "seconds": round(seconds, 3),
        "committed": time.time(),
        "mlflow_run_id": ctx.tracker.run_id,
    }


def _check_unchanged(call: Call, where: Address, store: Store, digests: Digests) -> None:
    """Refuse to commit what was made from inputs that changed while they were read."""
    now = address.resolve(call.component, call.inputs, store=store, digests=digests, run=call.run)
    changed = [name for name, value in where.inputs.items() if now.inputs[name] != value]
    if changed:
        raise RetryLater(f"{where.component}: {', '.join(changed)} changed while it was read; call again")


def _give_up(tracker: tracking.RunTracker, *, stopped: bool) -> None:
    """Keep what the tracker was told; a stopped run goes on later, any other has failed."""
    try:
        tracker.settle()
        if not stopped:
            tracking.close(tracker.client, tracker.run_id, succeeded=False)
    except tracking.failures() as error:
        log.warning("event=tracker_failed error=%r", str(error))


def _lost(store: Store, attempt: Attempt, winner: commits.Record, tracker: tracking.RunTracker) -> Result:
    store.delete_folder(attempt.prefix)
    tracking.finish(tracker.client, tracker.run_id)
    reason = f"attempt {winner['attempt']} committed the same work first"
    log.info("event=lost_race attempt=%s winner=%s", attempt.id, winner["attempt"])
    return _result("lost", reason, winner, store)


def _result(decision: str, reason: str, record: commits.Record, store: Store) -> Result:
    outputs = commits.resolved_outputs(store, record)
    return Result(decision=decision, reason=reason, commit=record, outputs=outputs)


def _tracker(call: Call, where: Address, attempt: Attempt, store: Store) -> tracking.RunTracker:
    def leads() -> bool:
        return not attempt.superseded() and min(attempt.rivals(), default=attempt.id) >= attempt.id

    client = tracking.connect(call.settings)
    return tracking.child_run(
        client,
        call.settings,
        store,
        where,
        run=call.run,
        task=call.task,
        attempt=attempt.id,
        leads=leads,
        rivals=attempt.rivals,
        params=call.values,
    )


def _log_outputs(tracker: tracking.RunTracker, record: commits.Record) -> None:
    tracker.metrics(tracking.numbers(record["outputs"], prefix="output/"), step=0)
    tracker.complete()
    texts = {name: value for name, value in record["outputs"].items() if isinstance(value, str)}
    digests = {f"{name}.digest": v["digest"] for name, v in record["outputs"].items() if isinstance(v, dict)}
    tracker.tags({f"output.{name}": value for name, value in (texts | digests).items()})


def _point(
    call: Call,
    store: Store,
    where: Address,
    decision: str,
    reason: str,
    *,
    record: commits.Record | None = None,
    attempt: str | None = None,
    error: BaseException | None = None,
    seconds: float = 0.0,
) -> None:
    pointer = runs.Pointer(
        task=call.task,
        component=where.component,
        key=where.key,
        decision=decision,
        reason=reason,
        inputs=call.values,
        outputs=commits.resolved_outputs(store, record) if record else None,
        attempt=record["attempt"] if record else attempt,
        mlflow_run_id=record["mlflow_run_id"] if record else None,
        error=mask(f"{type(error).__name__}: {error}") if error else None,
        exit_code=getattr(error, "exit_code", 1) if error else 0,
        seconds=round(seconds, 3),
    )
    runs.point(store, call.run, pointer)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="telecine-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _preemption() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, or the death of the process that asked for this one to end with it."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    parent = os.environ.get("TELECINE_PARENT_PID")
    done = threading.Event()
    if parent:
        threading.Thread(target=_watch_parent, args=(int(parent), event, done), daemon=True).start()
    if os.environ.get("TELECINE_LEASH") == "stdin":
        threading.Thread(target=_watch_stdin, args=(event,), daemon=True).start()
    try:
        yield event
    finally:
        done.set()
        signal.signal(signal.SIGTERM, before)


def _watch_parent(parent: int, event: threading.Event, done: threading.Event) -> None:
    while not done.wait(1.0):
        if os.getppid() != parent:
            event.set()
            return


def _watch_stdin(event: threading.Event) -> None:
    """Set the event once nobody holds the other end of standard input: the one tie that crosses a container's wall."""
    while os.read(0, 4096):
        pass
    event.set()


@contextlib.contextmanager
def closing_run(here: Settings, run: str) -> Iterator[None]:
    """End the MLflow parent of a run that nobody else will close, where it has one, after what is done meanwhile."""
    try:
        yield
    except BaseException:
        try:
            _close_run(Store(here.store_uri, patience_s=0.0), here, run)
        except TelecineError as second:
            log.warning("event=close_failed error=%r", str(second))
        except tracking.failures() as second:  # asked for last: it imports MLflow
            log.warning("event=close_failed error=%r", str(second))
        raise
    _close_run(Store(here.store_uri), here, run)


@storage.disk_full()
def _close_run(store: Store, here: Settings, run: str) -> None:
    claim = store.read_json(runs.mlflow_claim(run, here.tracker_id))
    if claim is not None:
        failed = [pointer for pointer in runs.pointers(store, run) if pointer.decision not in runs.SETTLED]
        with tracking.translated(here):
            tracking.close(tracking.connect(here), claim["run_id"], succeeded=not failed)


def origin_record(settings: Settings, run: str, origin: Mapping[str, str]) -> None:
    """Record which DAG run a run's slug stands for."""
    runs.register(Store(settings.store_uri), run, **origin)
