"""A warm process that forks one process for every attempt, so that thousands of attempts can be killed.

It reads one job a line from stdin and answers with two lines: the number of the process that does the job, and how
that process ended with what it found. It opens no store itself: threads do not survive a fork.
"""

import contextlib
import ctypes
import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import scripted_work
from telecine.storage import Store

PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What one forked process does.

    Attributes:
        deed: ``work`` (an attempt) or ``read`` (a fresh reader).
        kill_at: number of the changing store operation at which the process kills itself, or None.
        moment: ``before`` or ``after`` that operation.
        max_file_bytes: the process dies in the write that would make a file longer than this.
        wait: whether it waits for SIGUSR1 before it does anything.
    """

    deed: str
    store: str
    home: str
    shape: dict[str, Any]
    attempt: str = "reader"
    force: bool = False
    kill_at: int | None = None
    moment: str = "before"
    max_file_bytes: int | None = None
    wait: bool = False


class MortalStore(Store):
    """A store whose process dies before or after its nth changing operation."""

    def __init__(self, uri: str, kill_at: int | None, moment: str) -> None:
        super().__init__(uri)
        self.num_changes = 0
        self._kill_at, self._moment = kill_at, moment

    def write(self, path: str, data: bytes) -> None:
        """Write, or die."""
        with self._mortal():
            super().write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Create, or die."""
        with self._mortal():
            return super().create(path, data)

    def delete(self, path: str) -> None:
        """Delete, or die."""
        with self._mortal():
            super().delete(path)

    def upload(self, file: Path, path: str) -> None:
        """Upload, or die."""
        with self._mortal():
            super().upload(file, path)

    def sync(self, paths: list[str]) -> None:
        """Flush, or die."""
        with self._mortal():
            super().sync(paths)

    @contextlib.contextmanager
    def _mortal(self) -> Any:
        self.num_changes += 1
        if self.num_changes == self._kill_at and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if self.num_changes == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Fork for every job until stdin ends."""
    logging.basicConfig(level=logging.ERROR)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # before any fork: it may come before the child looks
    for line in sys.stdin:
        job = Job(**json.loads(line))
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(source)
            _child(job, sink)
        os.close(sink)
        _say({"pid": pid})
        with os.fdopen(source) as stream:
            text = stream.read()
        _, status = os.waitpid(pid, 0)
        found = json.loads(text) if text else None
        _say({"code": os.waitstatus_to_exitcode(status), "found": found})
    return 0


def _child(job: Job, sink: int) -> None:
    """Do the job and end the process without the parent's exit handlers."""
    code = 1
    scratch = Path(job.home) / "scratch"
    try:
        if job.wait:
            _await_signal()
        if job.max_file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: a write would only fail
            resource.setrlimit(resource.RLIMIT_FSIZE, (job.max_file_bytes, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        found = _do(job, scratch)
        os.write(sink, json.dumps(found).encode())
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(code)


def _do(job: Job, scratch: Path) -> dict[str, Any]:
    shape = scripted_work.Shape(**job.shape)
    if job.deed == "read":
        return scripted_work.inspect(Store(job.store))
    store = MortalStore(job.store, job.kill_at, job.moment)
    found = scripted_work.attempt(store, shape, Path(job.home), scratch, job.attempt, force=job.force)
    return found | {"num_changes": store.num_changes}


def _await_signal() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)  # strace may look, whoever runs it
    signal.sigwait({signal.SIGUSR1})


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
