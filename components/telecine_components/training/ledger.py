"""The goodput ledger: where the time of a piece of training went, by cause, over all its attempts.

Every second since the work was asked for has one cause. ``spend`` measures those of this process; the heartbeat writes
them with every beat; and :func:`account` puts the attempts together, so that one that was killed is accounted for by
the next: its steps after the restored checkpoint are lost work, and the time until its successor began is queue.

    ledger = open_ledger(ctx)
    with ledger.spend("init"):
        …
    with ledger.spend("checkpoint_restore"):
        …
    ledger.restored(state.step)
    for step in …:
        with ledger.spend("data_wait"):
            …
        with ledger.spend("productive"):
            …
        ledger.step(step + 1)
"""

import bisect
import contextlib
import dataclasses
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from telecine.context import Context

BEFORE = ("queue", "image")
SPENT = (
    "init",
    "compile",
    "data_wait",
    "checkpoint_save",
    "checkpoint_restore",
    "evaluation",
    "straggler",
    "productive",
)
"""What a process measures of itself."""
STEPPING = ("data_wait", "straggler", "productive")
"""Of these a step is made."""
CAUSES = (*BEFORE, *SPENT, "lost_work", "unattributed")
"""
queue: from when the work was asked for, or its last attempt was last seen, until a machine was found for it.
image: from then until its process began.
init: from then until the ledger was opened (imports), building model and ranks, and parting from the ranks.
compile: what torch.compile takes, whatever it was called for; see :func:`compiling`.
data_wait, checkpoint_restore, evaluation: as spent by the trainer.
checkpoint_save: for which a step waits, and writing and committing the result.
straggler: the part of productive time in which every rank waited for the slowest one.
lost_work: productive time of steps that were taken again: by a later attempt, or after a rollback; and what an attempt
that was stopped or failed took from then to its end.
productive: the steps that count, from one to the next, with what is told of them.
unattributed: the rest of an attempt's life. It is computed, never spent.
"""

NUM_MARKS = 64
"""Checkpoints of an attempt that are remembered, the newest ones."""
NUM_STEP_TIMES = 64
"""Steps over which the median step time is taken."""
_MEASURED = (*SPENT, "lost_work")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptTimes:
    """One attempt as its last heartbeat left it. Times are seconds since the epoch.

    Attributes:
        born, seen: when its process began, and when it wrote this.
        submitted, placed: when the work was asked for and when a machine was found for it; None where nobody said.
        seconds: spent by cause since it was born; lost work of its own rollbacks among it.
        restored: optimiser steps that it found done; None where it did not come so far.
        marks: (steps done, productive seconds until then) where it went on from and at each checkpoint, ascending.
    """

    born: float
    seen: float
    submitted: float | None = None
    placed: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    restored: int | None = None
    marks: Sequence[tuple[int, float]] = ()

    @property
    def productive_s(self) -> float:
        """Time in steps, lost ones included."""
        return self.seconds.get("productive", 0.0)

    def productive_until(self, step: int) -> float:
        """Productive seconds until its newest checkpoint of at most ``step`` steps, or until it began."""
        kept = bisect.bisect_right([done for done, _ in self.marks], step)
        return min(self.marks[kept - 1][1], self.productive_s) if kept else 0.0


def account(attempts: Sequence[AttemptTimes], now: float) -> dict[str, float]:
    """Seconds by cause, all of :data:`CAUSES`, from when the work was asked for until ``now``.

    They add up to that span where attempts follow each other. Of one that began while another lived, which happens
    when a machine is cut off and comes back, the time counts twice; the clocks of the attempts' machines are believed.

    Args:
        attempts: of one piece of work.
        now: seconds since the epoch.
    """
    total = dict.fromkeys(CAUSES, 0.0)
    ordered = sorted(attempts, key=lambda one: one.born)
    idle_since: float | None = None
    for index, one in enumerate(ordered):
        asked = one.submitted if idle_since is None else idle_since
        _add_wait(total, one, one.born if asked is None else min(asked, one.born))
        idle_since = one.seen if idle_since is None else max(idle_since, one.seen)
        _add_life(total, one, _lost_s(one, ordered[index + 1 :]))
    if idle_since is not None:
        total["queue"] += max(0.0, now - idle_since)
    return total


def _add_wait(total: dict[str, float], one: AttemptTimes, since: float) -> None:
    """The time before an attempt's process began."""
    placed = one.born if one.placed is None else min(max(one.placed, since), one.born)
    total["queue"] += placed - since
    total["image"] += one.born - placed


def _add_life(total: dict[str, float], one: AttemptTimes, lost_s: float) -> None:
    for cause in _MEASURED:
        total[cause] += one.seconds.get(cause, 0.0)
    total["productive"] -= lost_s
    total["lost_work"] += lost_s
    total["unattributed"] += max(0.0, one.seen - one.born - sum(one.seconds.get(cause, 0.0) for cause in _MEASURED))


def _lost_s(one: AttemptTimes, later: Sequence[AttemptTimes]) -> float:
    """Productive time of the steps that a later attempt took again, or has to: it began before them."""
    restored = [each.restored for each in later if each.restored is not None]
    return one.productive_s - one.productive_until(min(restored)) if restored else 0.0


def productive_ratio(total: Mapping[str, float]) -> float:
    """Goodput: productive time as a share of all, 0 to 1."""
    whole = sum(total.values())
    return total["productive"] / whole if whole else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activity:
    """What a process is at.

    Attributes:
        step: optimiser steps done.
        cause: what it spends its time on, None where nobody said; ``cause_s`` for how long.
        step_s: time that has gone into the step at hand.
        median_step_s: of the last steps; None before there is one.
    """

    step: int
    cause: str | None
    cause_s: float
    step_s: float
    median_step_s: float | None


class Ledger:
    """What this process spends its time on. One thread spends; any thread may read.

    Args:
        born: when the process began, seconds since the epoch; all until now was initialisation.
        submitted, placed: see :class:`AttemptTimes`.
        earlier: the attempts before this one.
        clock, wall: seconds that only ever grow, and seconds since the epoch.
    """

    def __init__(
        self,
        *,
        born: float | None = None,
        submitted: float | None = None,
        placed: float | None = None,
        earlier: Sequence[AttemptTimes] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall, self._lock = clock, wall, threading.Lock()
        now = wall()
        self._born = now if born is None else min(born, now)
        self._submitted, self._placed, self._earlier = submitted, placed, tuple(earlier)
        self._seconds = dict.fromkeys(_MEASURED, 0.0) | {"init": now - self._born}
        self._causes: list[str] = []
        self._rest: str | None = None
        self._since = self._entered = clock()
        self._step, self._step_began_s = 0, 0.0
        self._restored: int | None = None
        self._marks: list[tuple[int, float]] = []
        self._moved_until_s = 0.0
        self._step_times: deque[float] = deque(maxlen=NUM_STEP_TIMES)

    @contextlib.contextmanager
    def spend(self, cause: str) -> Iterator[None]:
        """Give the block's time to a cause of :data:`SPENT`; a block inside it pauses this one.

        Raises:
            ValueError: a cause that no process can measure.
        """
        if cause not in SPENT:
            raise ValueError(f"Ledger.spend: cause must be one of {', '.join(SPENT)}, got {cause!r}")
        with self._lock:
            self._entered = self._settle()
            self._causes.append(cause)
        try:
            yield
        finally:
            with self._lock:
                self._entered = self._settle()
                self._causes.pop()

    def rest(self, cause: str) -> None:
        """Give all time from now on that no block covers to a cause, instead of the one before.

        For the end: what a component's last line is followed by is the upload and the commit of its result, and what
        an error is followed by is lost work.

        Raises:
            ValueError: a cause that no process can measure.
        """
        if cause not in _MEASURED:
            raise ValueError(f"Ledger.rest: cause must be one of {', '.join(_MEASURED)}, got {cause!r}")
        with self._lock:
            self._entered = self._settle()
            self._rest = cause

    def move(self, seconds: float, source: str, target: str) -> None:
        """Give time that was spent on ``source``, as far as it goes, to ``target``: what is known only afterwards.

        Raises:
            ValueError: a cause that no process can measure, or less than no time.
        """
        if seconds < 0 or source not in SPENT or target not in SPENT:
            rule = f"seconds must be at least 0, source and target of {', '.join(SPENT)}"
            raise ValueError(f"Ledger.move: {rule}; got {seconds}, {source!r}, {target!r}")
        with self._lock:
            self._settle()
            moved = min(seconds, self._seconds[source])
            if source == "productive":
                self._move_marks(moved)
            self._seconds[source] -= moved
            self._seconds[target] += moved

    def _move_marks(self, moved: float) -> None:
        """What is taken from productive time is taken evenly from all since the last time, so from marks within it."""
        now, begun = self._seconds["productive"], min(self._moved_until_s, self._seconds["productive"])
        left = max(0.0, 1 - moved / (now - begun)) if now > begun else 1.0
        self._marks = [(step, min(at, begun) + max(0.0, at - begun) * left) for step, at in self._marks]
        self._moved_until_s = now - moved

    def restored(self, step: int) -> None:
        """Training begins after ``step`` steps, 0 where there was no checkpoint."""
        with self._lock:
            self._settle()
            self._step, self._restored = step, step
            self._marks = [(step, self._seconds["productive"])]
            self._step_began_s = self._stepping_s()

    def rolled_back(self, step: int) -> None:
        """Training goes on from an earlier checkpoint; productive time since then is lost work."""
        with self._lock:
            self._settle()
            self._marks = [mark for mark in self._marks if mark[0] <= step]
            kept = min(self._marks[-1][1], self._seconds["productive"]) if self._marks else 0.0
            self._seconds["lost_work"] += self._seconds["productive"] - kept
            self._seconds["productive"] = kept
            self._moved_until_s = min(self._moved_until_s, kept)
            self._step, self._step_began_s = step, self._stepping_s()
            self._restored = step if self._restored is None else min(self._restored, step)

    def step(self, step: int) -> float:
        """``step`` optimiser steps are done; returns the seconds of :data:`STEPPING` that the last one took."""
        with self._lock:
            self._settle()
            now = self._stepping_s()
            taken, self._step_began_s, self._step = max(0.0, now - self._step_began_s), now, step
            self._step_times.append(taken)
            return taken

    def mark(self, step: int) -> None:
        """The state after ``step`` steps is being saved: whoever restores it has lost nothing before."""
        with self._lock:
            self._settle()
            self._marks = [*self._marks[-NUM_MARKS:], (step, self._seconds["productive"])]

    def activity(self) -> Activity:
        """What the process is at."""
        with self._lock:
            now = self._settle()
            return Activity(
                step=self._step,
                cause=self._cause(),
                cause_s=now - self._entered,
                step_s=max(0.0, self._stepping_s() - self._step_began_s),
                median_step_s=statistics.median(self._step_times) if self._step_times else None,
            )

    def times(self) -> AttemptTimes:
        """This attempt until now."""
        with self._lock:
            self._settle()
            return AttemptTimes(
                born=self._born,
                seen=self._wall(),
                submitted=self._submitted,
                placed=self._placed,
                seconds=dict(self._seconds),
                restored=self._restored,
                marks=tuple(self._marks),
            )

    def total(self) -> dict[str, float]:
        """Seconds by cause of all attempts until now; see :func:`account`."""
        mine = self.times()
        return account([*self._earlier, mine], mine.seen)

    def document(self) -> dict[str, Any]:
        """What the heartbeat writes: this attempt for the next one to read, and the sums for people.

        ``total`` has seconds by cause, ``productive_ratio`` the goodput; ``cause``, ``cause_s``, ``step`` and
        ``median_step_s`` are of :class:`Activity`.
        """
        total, now = self.total(), dataclasses.asdict(self.activity())
        return {**now, "times": dataclasses.asdict(self.times()), "total": total} | {
            "productive_ratio": productive_ratio(total)
        }

    def _settle(self) -> float:
        """Give the time since the last settlement to the cause at hand; returns the clock."""
        now = self._clock()
        if (cause := self._cause()) is not None:
            self._seconds[cause] += now - self._since
        self._since = now
        return now

    def _cause(self) -> str | None:
        return self._causes[-1] if self._causes else self._rest

    def _stepping_s(self) -> float:
        # Lost work was productive: a rollback moves it, and no step has negative length.
        return sum(self._seconds[cause] for cause in (*STEPPING, "lost_work"))


@contextlib.contextmanager
def compiling(ledger: Ledger) -> Iterator[None]:
    """Give what torch.compile takes while the block lasts to ``compile``, whatever step or evaluation it interrupts."""
    from torch._dynamo.callback import CallbackArgs, callback_handler  # it takes a second to import

    block = contextlib.ExitStack()

    def begin(_: CallbackArgs) -> None:
        block.enter_context(ledger.spend("compile"))

    def end(_: CallbackArgs) -> None:
        block.close()

    callback_handler.register_start_callback(begin)
    callback_handler.register_end_callback(end)
    try:
        yield
    finally:
        callback_handler.remove_start_callback(begin)
        callback_handler.remove_end_callback(end)


def attempt_times(state: Mapping[str, Any]) -> AttemptTimes | None:
    """What an attempt's last heartbeat says of its times; None where it says nothing.

    One that died before it opened a ledger was initialising all its life.
    """
    if "started" not in state:
        return None
    born, seen = float(state["started"]), float(state["beat"])
    told = (state.get("ledger") or {}).get("times")
    if told is None:
        life = {"init": max(0.0, seen - born)}
        return AttemptTimes(
            born=born, seen=seen, submitted=state.get("submitted"), placed=state.get("placed"), seconds=life
        )
    marks = tuple((int(step), float(seconds)) for step, seconds in told["marks"])
    return AttemptTimes(**{**told, "marks": marks})


def open_ledger(ctx: Context) -> Ledger:
    """The ledger of an attempt, which knows the attempts before it and is written with every heartbeat."""
    earlier = [times for state in ctx.earlier_attempts() if (times := attempt_times(state)) is not None]
    mine = ctx.attempt_state()
    ledger = Ledger(born=mine["started"], submitted=mine["submitted"], placed=mine["placed"], earlier=earlier)
    ctx.tell_ledger(ledger.document)
    return ledger
