"""Watching one job from a process that may end at any time: what it has seen is in the store, not in its memory."""

import dataclasses
import secrets
import time
from collections.abc import Callable

from telecine.errors import InputError, RetryLater
from telecine.runners.cluster import api, jobs, look
from telecine.runners.cluster.api import Api, Away
from telecine.runners.cluster.jobs import Submission
from telecine.runners.cluster.words import State
from telecine.storage import Store
from telecine.work import attempts, status, waits
from telecine.work.waits import Wait

FIRST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_AWAY_S = 0.5, 10.0, 60.0
REFRESH_S = 60.0
"""How often what has not changed is written again, so that a reader sees that somebody still looks."""


class Watch:
    """Looks at one job again and again; nothing that goes wrong with looking ends or harms the job.

    Args:
        connect: makes the client; called again after an error, because credentials may have been renewed.
    """

    def __init__(self, submission: Submission, connect: Callable[[], Api] = api.connect) -> None:
        self.submission = submission
        self.lines: list[str] = []
        self.pause_s = 0.0
        self._connect = connect
        self._api: Api | None = None
        self._store: Store | None = None
        self._wait: Wait | None = None
        self._written = self._looked = 0.0
        self._locked_out_s = 0.0
        self._said = ""

    @property
    def store(self) -> Store:
        """The submission's store, opened at first use."""
        if self._store is None:
            self._store = Store(self.submission.store_uri)
        return self._store

    def step(self) -> State | None:
        """Look once. The state in which the task has nothing more to wait for, else None and how long to pause."""
        try:
            return self._step()
        except RetryLater as error:
            self._be_patient(str(error), error.after_s if isinstance(error, Away) else 0.0)
        except InputError as error:
            return self._be_locked_out(str(error))
        return None

    def take_lines(self) -> list[str]:
        """What happened since the last call, for a log."""
        lines, self.lines = self.lines, []
        return lines

    def _step(self) -> State | None:
        found = self._look()
        elapsed_s = self._elapsed_s()
        self._locked_out_s, self._said = 0.0, ""
        if found.phase in jobs.OVER:
            return self._end(found)
        wait = self._note(found, elapsed_s)
        too_long = self._too_long(found, wait)
        if not too_long:
            return None
        waited = dataclasses.replace(found, reason=too_long, hopeless=True)
        if not jobs.owns(self.store, self.submission):
            return self._leave(waited)
        return self._end(waited) if self._give_up(too_long) else None

    def _look(self) -> State:
        if jobs.is_committed(self.store, self.submission):
            return jobs.DONE
        self._api = self._api or self._connect()
        refused = jobs.make(self._api, self.store, self.submission)
        return refused or jobs.look(self._api, self.store, self.submission)

    def _give_up(self, reason: str) -> bool:
        assert self._api is not None
        return jobs.give_up(self._api, self.store, self.submission, reason)

    def _end(self, found: State) -> State:
        ended = jobs.finish(self.store, self.submission, found)
        waits.clear(self.store, self.submission.run, self.submission.task)
        self.lines.append(f"event=job_ended object={self.submission.object!r} reason={ended.reason!r}")
        return ended

    def _leave(self, found: State) -> State:
        """Wait no longer for the job of another task, which goes on."""
        waits.clear(self.store, self.submission.run, self.submission.task)
        self.lines.append(f"event=left_alone object={self.submission.object!r} reason={found.reason!r}")
        return found

    def _too_long(self, found: State, wait: Wait) -> str:
        limit_s = self.submission.max_pending_s
        if found.phase in look.PENDING and wait.pending_s > limit_s:
            return f"it waited {wait.pending_s:.0f} s to start, more than max_pending_s = {limit_s:g}: {found.reason}"
        if found.hopeless and wait.hopeless_s > self.submission.patience_s:
            return f"{found.reason} (for {wait.hopeless_s:.0f} s; waiting does not mend it)"
        return ""

    def _note(self, found: State, elapsed_s: float) -> Wait:
        """Write what was seen, and say it, where it has changed."""
        before = self._before()
        reason = f"{found.reason}{self._progress() if found.phase == 'running' else ''}"
        pending_s = before.pending_s + elapsed_s if found.phase in look.PENDING else 0.0
        hopeless_s = before.hopeless_s + elapsed_s if found.hopeless else 0.0
        changed = (found.phase, reason, found.node) != (before.phase, before.reason, before.node)
        since = before.since if found.phase == before.phase else time.time()
        placed = (before.placed if found.node == before.node else time.time()) if found.node else None
        wait = dataclasses.replace(
            before, phase=found.phase, reason=reason, node=found.node, placed=placed, since=since, at=time.time()
        )
        wait = dataclasses.replace(wait, pending_s=pending_s, hopeless_s=hopeless_s)
        self._keep(wait, changed=changed)
        self._pace(quick=changed)
        return wait

    def _before(self) -> Wait:
        """What this job was last seen to be, also by an earlier watcher."""
        made = self.submission
        if self._wait is None:
            kept = waits.read(self.store, made.run, made.task)
            fresh = Wait(
                task=made.task, component=made.component, key=made.key, object=made.object, phase="", reason=""
            )
            self._wait = kept if kept is not None and kept.object == made.object else fresh
        return self._wait

    def _keep(self, wait: Wait, *, changed: bool) -> None:
        self._wait = wait
        if changed:
            self.lines.append(f"event={wait.phase} object={wait.object!r} reason={wait.reason!r}")
        if changed or time.monotonic() - self._written > REFRESH_S:
            waits.write(self.store, self.submission.run, wait)
            self._written = time.monotonic()

    def _progress(self) -> str:
        """How far the youngest attempt that lives is, in steps of ten per cent: a log is no progress bar."""
        living = [s for s in attempts.states(self.store, self.submission.prefix) if attempts.is_alive(s)]
        if not living or not living[-1]["progress"]["total"]:
            return ""
        return f", {status.coarse(living[-1]['progress'])}"

    def _be_patient(self, reason: str, after_s: float) -> None:
        self._api = None
        self._tell("away", reason)
        self.pause_s = max(min(after_s, LONGEST_AWAY_S), _jittered(min(LONGEST_AWAY_S, max(1.0, self.pause_s * 2))))
        self._elapsed_s()

    def _be_locked_out(self, reason: str) -> State | None:
        """Credentials and rights come and go while they are renewed; the job itself goes on."""
        self._api = None
        self._locked_out_s += self._elapsed_s()
        if self._locked_out_s > self.submission.patience_s:
            return State(phase="locked_out", reason=reason, hopeless=True)
        self._tell("locked_out", reason)
        self._pace(quick=False)
        return None

    def _tell(self, phase: str, reason: str) -> None:
        """Say once that looking goes wrong, and keep it for those who ask, where the store can be reached."""
        try:
            before = self._before()
            changed = (phase, reason) != (before.phase, before.reason)
            since = before.since if phase == before.phase else time.time()
            wait = dataclasses.replace(before, phase=phase, reason=reason, since=since, at=time.time())
            self._keep(wait, changed=changed)
        except RetryLater:
            line = f"event={phase} object={self.submission.object!r} reason={reason!r}"
            if self._said != line and line not in self.lines:
                self.lines.append(line)
            self._said = line

    def _elapsed_s(self) -> float:
        """Seconds since the last look of this process."""
        now = time.monotonic()
        elapsed_s = now - self._looked if self._looked else 0.0
        self._looked = now
        return elapsed_s

    def _pace(self, *, quick: bool) -> None:
        longer_s = min(LONGEST_PAUSE_S, self.pause_s * 1.5)
        self.pause_s = _jittered(FIRST_PAUSE_S if quick else max(FIRST_PAUSE_S, longer_s))


def _jittered(seconds: float) -> float:
    """Spread, so that a thousand watchers do not ask at once."""
    return seconds * secrets.SystemRandom().uniform(0.8, 1.2)
