"""Notices that training stands still, says what it stands at and which rank is to blame, and ends the process.

A hang raises nothing: a collective waits for a rank that is stopped, a read for a disk that is gone. So a thread looks
at the ledger. It ends the process with exit code 75, try again: the next attempt goes on from the last checkpoint, and
a hang alone does not prove that the hardware is broken (69 is for faults that the hardware itself reports). Where the
work is done by several ranks each has a watchdog; those that wait for the hung one end, and with them their job.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from telecine.errors import RetryLater, TelecineError
from telecine_components.training.ledger import Activity, Ledger

log = logging.getLogger(__name__)

PATIENCE_S = 1800.0
"""For what is no step: a compilation, a checkpoint, an evaluation."""
LAST_WORDS_S = 5.0
"""For so long is waited for the ranks' answers, and then for the state to be written: either may hang as well."""
MAX_RANKS_TOLD = 8
_NUM_SAID = 4


class RankStore(Protocol):
    """Where ranks leave a word for each other: a ``torch.distributed.Store`` of the watchdog's own.

    Its calls come from the watchdog's thread; give it a clone, or another store over the same file or address.
    """

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


class FolderStore:
    """Words of the ranks of one machine, a file each: nobody who is stopped while it writes keeps the others out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def set(self, key: str, value: str) -> None:
        """Leave a word in place of the one before."""
        # Threads of one process may speak at once.
        draft = self._folder / f".{key}-{os.getpid()}-{threading.get_ident()}"
        draft.write_text(value)
        draft.replace(self._folder / key)

    def get(self, key: str) -> bytes:
        """The last word; raises :class:`FileNotFoundError` where there is none."""
        return (self._folder / key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        """Whether there is a word for each key."""
        return all((self._folder / key).exists() for key in keys)


class RollCall:
    """Each rank says regularly what it is at; one that stands still asks who has fallen silent."""

    def __init__(self, store: RankStore, rank: int, num_ranks: int) -> None:
        self._store, self._rank, self._num_ranks = store, rank, num_ranks
        self._num_said = 0
        self._last: dict[int, dict[str, Any]] = {}
        self._silent_s = dict.fromkeys(range(num_ranks), 0.0)

    def say(self, now: Activity) -> None:
        """Leave word that this rank lives and what it is at."""
        self._num_said += 1
        told = {"said": self._num_said, "step": now.step, "cause": now.cause}
        self._store.set(_key(self._rank), json.dumps(told))

    def part(self) -> None:
        """Leave word that this rank has nothing more to say."""
        self._store.set(_key(self._rank), json.dumps({"parted": True}))

    def listen(self, passed_s: float) -> None:
        """Hear what was said last, ``passed_s`` after it was done before: rank 0 of all, the others of rank 0 alone.

        So what the store is asked grows with the number of ranks, not with its square.
        """
        for rank, told in self._heard(range(self._num_ranks) if self._rank == 0 else (0,)).items():
            spoke = "step" not in told or told != self._last.get(rank)
            self._silent_s[rank] = 0.0 if spoke else self._silent_s[rank] + passed_s
            self._last[rank] = told

    def silent(self, limit_s: float) -> str:
        """Which rank has been silent for longer, in words; one that never said a word, or has parted, is not missed."""
        for rank, seconds in self._silent_s.items():
            if rank != self._rank and seconds > limit_s:
                return f"rank {rank} says nothing for {seconds:.0f} s (limit {limit_s:.0f} s)"
        return ""

    def ask(self, now: Activity, pause_s: float) -> str:
        """Which ranks say nothing within ``pause_s``, and which are at something else than this one; in words."""
        ranks = range(self._num_ranks)
        before = self._heard(ranks)
        for _ in range(_NUM_SAID):  # the others ask as well, perhaps
            self.say(now)
            time.sleep(pause_s / _NUM_SAID)
        after = self._heard(ranks)
        silent = [rank for rank in after if rank != self._rank and before[rank] == after[rank]]
        others = [
            f"rank {rank} is at step {told['step']} in {told['cause']}"
            for rank, told in after.items()
            if "step" in told and rank not in silent and (told["step"], told["cause"]) != (now.step, now.cause)
        ]
        words = [f"rank {rank} is silent" + _last(after[rank]) for rank in silent] + others
        more = f" and {len(words) - MAX_RANKS_TOLD} more" if len(words) > MAX_RANKS_TOLD else ""
        return "; ".join(words[:MAX_RANKS_TOLD]) + more or "all ranks say the same"

    def _heard(self, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The last word of each of these ranks, empty where there is none."""
        keys = {rank: _key(rank) for rank in ranks}
        return {
            rank: json.loads(self._store.get(key)) if self._store.check([key]) else {} for rank, key in keys.items()
        }


class Watchdog:
    """Looks at a ledger while its block lasts.

    Args:
        on_hang: called once, in the watchdog's thread, with the line that was logged; by default :func:`end_process`.
        save: writes the attempt's state, ledger and log (``ctx.save_state``); called before ``on_hang``.
        roll_call: how to find out which rank is to blame.
        floor_s: a step may take so long whatever the others took, and a rank may be silent for so long.
        step_ratio: and this multiple of the median step.
        patience_s: how long anything else may take at a stretch: a compilation, a checkpoint, an evaluation, and the
            first step, which has no others to be held against.
        grace_s: added to ``floor_s`` and ``patience_s`` by one that lets another speak first. How often ranks leave
            word is decided without it: all of them have to be heard in the time for which one listens.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        on_hang: Callable[[str], None] | None = None,
        save: Callable[[], None] | None = None,
        roll_call: RollCall | None = None,
        floor_s: float = 30.0,
        step_ratio: float = 5.0,
        patience_s: float = PATIENCE_S,
        grace_s: float = 0.0,
    ) -> None:
        self._ledger, self._on_hang, self._save, self._roll_call = ledger, on_hang or end_process, save, roll_call
        self._floor_s, self._step_ratio, self._patience_s = floor_s + grace_s, step_ratio, patience_s + grace_s
        self.pause_s = min(5.0, floor_s / 4, patience_s / 4)
        self._watched = threading.get_ident()
        self._closing = threading.Event()
        self._saying: threading.Thread | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(LAST_WORDS_S)
        if self._saying is not None:
            self._saying.join(LAST_WORDS_S)
        if self._roll_call is not None:
            _within(LAST_WORDS_S, self._roll_call.part)

    def _watch(self) -> None:
        looked, stopped_s, step = time.monotonic(), 0.0, -1
        self._speak(self._ledger.activity())  # who has not said a word yet is not missed
        while not self._closing.wait(self.pause_s):
            now, activity = time.monotonic(), self._ledger.activity()
            # A process that was itself stopped, by a person or a debugger, has not hung for that long.
            stopped_s = (stopped_s if activity.step == step else 0.0) + max(0.0, now - looked - 2 * self.pause_s)
            looked, step = now, activity.step
            if hang := self._hang(activity, stopped_s):
                self._bark(activity, hang)
                return
            self._speak(activity)

    def _speak(self, activity: Activity) -> None:
        """Say that this rank lives, and listen to the others, in a thread: a store may hang too."""
        if self._roll_call is not None and not (self._saying and self._saying.is_alive()):
            arguments = (self._roll_call, activity, self.pause_s)
            self._saying = threading.Thread(target=_say_and_listen, args=arguments, daemon=True)
            self._saying.start()

    def _hang(self, activity: Activity, stopped_s: float) -> str:
        """What stands still, in words: this rank's step, or another rank whatever this one waits for."""
        hang = overdue(
            activity,
            floor_s=self._floor_s + stopped_s,
            step_ratio=self._step_ratio,
            patience_s=self._patience_s + stopped_s,
        )
        if hang or self._roll_call is None:
            return hang
        return self._roll_call.silent(self._floor_s)

    def _bark(self, activity: Activity, hang: str) -> None:
        words = f"{hang}; step {activity.step}, in {activity.cause} for {activity.cause_s:.0f} s"
        words += f", at {_place(sys._current_frames().get(self._watched))}"
        if self._roll_call is not None:
            told, problem = _within(LAST_WORDS_S + 2 * self.pause_s, self._roll_call.ask, activity, 2 * self.pause_s)
            words += f"; {told}" if not problem else f"; the ranks cannot be asked: {problem}"
        log.error("event=hang reason=%r", words)
        if self._save is not None and (problem := _within(LAST_WORDS_S, self._save)[1]):
            log.warning("event=state_not_saved error=%r", problem)
        if not self._closing.is_set():
            self._on_hang(words)


def overdue(activity: Activity, *, floor_s: float, step_ratio: float, patience_s: float) -> str:
    """Why an activity has lasted too long, in words; empty where it has not. See :class:`Watchdog`."""
    if activity.median_step_s is not None:
        limit_s = max(floor_s, step_ratio * activity.median_step_s)
        if activity.step_s > limit_s:
            rule = f"limit {limit_s:.0f} s, the median step takes {activity.median_step_s:.3g} s"
            return f"no step for {activity.step_s:.0f} s ({rule})"
    if activity.cause_s > patience_s:
        return f"nothing has changed for {activity.cause_s:.0f} s (limit {patience_s:.0f} s)"
    return ""


def end_process(_: str) -> None:
    """End this process at once with exit code 75: nothing of it can be relied on to unwind."""
    for stream in (sys.stdout, sys.stderr):
        _within(1.0, stream.flush)
    os._exit(RetryLater.exit_code)


def _within(seconds: float, call: Callable[..., object], *arguments: object) -> tuple[object, str]:
    """What a call that may hang or fail returns, and what became of it where it did not return.

    A store or a disk may raise; an error of any other kind is shown by its thread and reads as no answer.
    """
    answer: list[tuple[object, str]] = []

    def run() -> None:
        try:
            answer.append((call(*arguments), ""))
        except (OSError, RuntimeError, ValueError, TelecineError) as error:
            answer.append((None, f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else (None, f"no answer within {seconds:.0f} s")


def _say_and_listen(roll_call: RollCall, activity: Activity, passed_s: float) -> None:
    try:
        roll_call.say(activity)
        roll_call.listen(passed_s)
    except (
        RuntimeError,
        OSError,
    ) as error:  # what stores of torch and of folders raise; who needs the word will see that it is missing
        log.warning("event=roll_call_failed error=%r", str(error))


def _place(frame: FrameType | None) -> str:
    """Where a thread is: its innermost line, and the innermost one of ours that led there."""
    places: list[str] = []
    found = frame
    while found is not None:
        code = found.f_code
        place = f"{os.path.basename(code.co_filename)}:{found.f_lineno} {code.co_name}"
        if not places or ("telecine_components" in code.co_filename and len(places) == 1):
            places.append(place)
        found = found.f_back
    return " from ".join(places) or "an unknown place"


def _last(told: dict[str, Any]) -> str:
    if "parted" in told:
        return " and has parted"
    return f", last heard at step {told['step']} in {told['cause']}" if told else " and never said a word"


def _key(rank: int) -> str:
    return f"telecine-rank-{rank}"
