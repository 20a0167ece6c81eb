"""One worker process: it makes items and commits them, and it may be killed at any moment."""

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from telecine import storage
from telecine.context import Source
from telecine.errors import TelecineError
from telecine.work.items import Batch
from telecine_components.stages import alive

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For libraries that a worker loads later. There is a worker for each processor already, and threads of linear algebra
wait for each other in a loop: with more of them than processors, waiting takes longer than the products."""


class Worker:
    """The parent's end of a worker process.

    Attributes:
        task: number and source of the item it is at, or None.
        connection: becomes readable when it has said something, or has died.
    """

    def __init__(self, batch: Batch, scratch: Path, *, beat_s: float) -> None:
        self.task: tuple[int, Source] | None = None
        self._ready, self.silent_s, self._looked_s = False, 0.0, time.monotonic()
        modules = sorted({type(stage).__module__ for stage in batch.stages} - {"__main__"})
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(modules)
        self.connection, theirs = context.Pipe()
        self._scratch = Path(tempfile.mkdtemp(dir=scratch))
        arguments = (theirs, batch, self._scratch, dict(os.environ), beat_s)
        self._process = context.Process(target=main, args=arguments, name="items", daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int, source: Source) -> None:
        """Have it make an item, once it is set up; its death, even before this, is found when it is listened to."""
        self.task, self.silent_s = (number, source), 0.0
        if self._ready:
            self._send()

    def _send(self) -> None:
        """To a process that takes it at once: one that does not would keep this one waiting for room in the pipe."""
        try:
            self.connection.send(self.task)
        except OSError:
            return

    def hear(self) -> tuple[str, Any] | None:
        """What it says: ``ready``, ``alive``, ``done`` or ``failed`` with the error; None if it has died."""
        try:
            word, value = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.silent_s = 0.0
        if word == "ready":
            self._ready = True
            self._send()
        return word, value

    def listen_in(self, at_most_s: float) -> None:
        """Count the silence; a pause of this process itself counts for no more than ``at_most_s``."""
        now = time.monotonic()
        if self.task is not None:
            self.silent_s += min(now - self._looked_s, at_most_s)
        self._looked_s = now

    def end(self, *, wait_s: float = 0.0) -> str:
        """How it ended, in words; it is killed, whatever it is at, unless it ends within a time. Its files go."""
        self._process.join(wait_s)
        self._process.kill()
        self._process.join()
        self.connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    @property
    def is_ready(self) -> bool:
        """Whether it has been set up."""
        return self._ready


def main(connection: Connection, batch: Batch, scratch: Path, environment: dict[str, str], beat_s: float) -> None:
    """The process itself: set up each stage, then take sources until nobody sends any."""
    for number in (signal.SIGTERM, signal.SIGINT):  # whoever started it decides when it stops, between two items
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)  # the parent logs what became of each item
    os.environ.clear()
    os.environ.update(environment | ONE_THREAD)
    threadpool_limits(1)
    tempfile.tempdir = str(scratch)
    alive.begin(lambda: connection.send(("alive", None)), every_s=beat_s)
    try:
        with storage.disk_full():
            _serve(connection, batch, scratch)
    except (EOFError, BrokenPipeError):
        return
    except TelecineError as error:
        connection.send(("failed", error))
    except Exception:
        connection.send(("failed", RuntimeError(f"in a worker process:\n{traceback.format_exc()}")))
        raise


def _serve(connection: Connection, batch: Batch, scratch: Path) -> None:
    items = batch.open(scratch)
    stages: Sequence[Any] = batch.stages
    for stage in stages:
        stage.setup()
    connection.send(("ready", None))
    while True:
        number, source = connection.recv()
        items.through(source, stages)
        items.records.clear()
        connection.send(("done", number))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
