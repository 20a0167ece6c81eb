"""Moments of a training at which its processes are killed, told from its store, and who these processes are."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

MOMENTS = ("start", "restore", "step", "save", "prune")
"""During imports; while it is built or restored; in a step; in a background save; after a commit."""
LAST_MOMENTS = ("evaluation", "final")
"""After the last step: while the result is measured; between the model's first file and the commit."""
TIMEOUT_S = 240.0
POLL_S = 0.002
STEP_S, FINAL_S = 0.3, 0.05
"""A kill in a step comes at most so long after a checkpoint, and one in the end after the model's first file."""
MAX_CHECKPOINTS = 2
"""So many may be committed before a kill: one training outlives many."""


class Training:
    """One attempt at pretrain.train that is running, seen from outside.

    Moments are told by the files that it writes. What random time is added to them ends with the next checkpoint, so
    that no moment comes after the end, however fast or slow the machine has become meanwhile.

    Args:
        work: folder of all its works.
        init_s: how long an attempt takes until it steps.
        every_steps, num_steps: between its checkpoints, and in all.
    """

    def __init__(
        self, process: "subprocess.Popen[str]", work: Path, *, init_s: float, every_steps: int, num_steps: int
    ) -> None:
        self.process, self._work = process, work
        self._init_s, self._every_steps, self._num_steps = init_s, every_steps, num_steps
        self._known = {*work.glob("*/beats/*.json"), *self._drafts(), *self._models()}
        self._began = newest(work)

    def reach(self, moment: str, draw: random.Random) -> bool:
        """Wait for a moment; False where the attempt ended before."""
        target = self._began + self._every_steps * draw.randint(1, MAX_CHECKPOINTS)
        if moment == "start":
            return self._pause(draw.uniform(0.1, self._init_s), self._began)
        if moment == "restore":
            begun = self._until(lambda: bool({*self._work.glob("*/beats/*.json")} - self._known))
            return begun and self._pause(draw.uniform(0.0, self._init_s / 2), self._began)
        if moment == "save":
            return self._until(lambda: newest(self._work) >= target - self._every_steps and self._saves())
        if moment == "evaluation":
            return self._until(lambda: newest(self._work) >= self._num_steps)
        if moment == "final":
            written = self._until(lambda: bool(self._models() - self._known))
            return written and self._pause(draw.uniform(0.0, FINAL_S), self._num_steps)
        reached = self._until(lambda: newest(self._work) >= target)
        return reached and (moment == "prune" or self._pause(draw.uniform(0.0, STEP_S), target))

    def _saves(self) -> bool:
        """Whether this attempt is writing a checkpoint."""
        return any(not (draft.parent / "commit.json").exists() for draft in self._drafts() - self._known)

    def _drafts(self) -> set[Path]:
        """Folders into which attempts wrote checkpoints."""
        return {path for path in self._work.glob("*/checkpoints/*/*") if path.name != "commit.json"}

    def _models(self) -> set[Path]:
        """Folders into which attempts wrote their model."""
        return {*self._work.glob("*/attempts/*/model")}

    def _until(self, there: Callable[[], bool]) -> bool:
        """Wait until something is there; whether the process still runs then."""
        deadline = time.monotonic() + TIMEOUT_S
        while not there():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"a moment of the training did not come within {TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        return self.process.poll() is None

    def _pause(self, seconds: float, step: int) -> bool:
        """Let some time pass, or less where a checkpoint after ``step`` comes before."""
        deadline = time.monotonic() + seconds
        return self._until(lambda: time.monotonic() >= deadline or newest(self._work) > step)


def newest(work: Path) -> int:
    """Step of the newest committed checkpoint, 0 before there is one."""
    return max((int(path.parent.name) for path in work.glob("*/checkpoints/*/commit.json")), default=0)


def followers(process: "subprocess.Popen[str]") -> list[int]:
    """Processes of a training's other ranks, where they have been started."""
    return [pid for pid in _children(process.pid) if "spawn_main" in _text(f"/proc/{pid}/cmdline")]


def kill(pid: int) -> None:
    """Kill a process with -9; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def left(home: Path) -> list[int]:
    """Living processes that work for a deployment's home, whoever their parent is."""
    mark = f"TELECINE_HOME={home}"
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if mark in _text(f"/proc/{pid}/environ").split("\0") and not _is_dead(pid)]


def left_after(home: Path, patience_s: float) -> list[int]:
    """Those that are still there after a while, or none as soon as there are none."""
    deadline = time.monotonic() + patience_s
    while (found := left(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _children(pid: int) -> list[int]:
    return [int(word) for task in Path(f"/proc/{pid}/task").glob("*") for word in _text(task / "children").split()]


def _is_dead(pid: int) -> bool:
    return _text(f"/proc/{pid}/stat").rpartition(") ")[2][:1] in ("", "Z", "X")


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
