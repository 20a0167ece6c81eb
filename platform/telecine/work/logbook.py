"""What an attempt says, kept in the store while it says it.

``work/<component>/<key>/logs/<attempt>.log`` is text: a UTC time, a space and one line of what was logged, progress
and warnings included; the traceback where the attempt failed. The heartbeat saves it, so a ``kill -9`` costs what was
said since the last beat.
"""

import logging
import threading
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any

from telecine.redaction import Redaction, mask
from telecine.storage import Store

PROGRESS_EVERY_S = 10.0
HEAD_LINES, TAIL_LINES = 2_000, 8_000
"""A log keeps its first and its last lines: a remote store is sent all of it at each save."""


class AttemptLog(logging.Handler):
    """Takes every record of this process while its attempt lives.

    Args:
        path: object that holds the log, relative to the store's root.
    """

    def __init__(self, store: Store, path: str) -> None:
        super().__init__(logging.INFO)
        self.addFilter(Redaction())
        self._store, self._path = store, path
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._num_lines, self._num_written = 0, 0
        self._progress_at = float("-inf")
        self._saving = threading.Lock()

    def open(self, **who: Any) -> None:
        """Begin with one line that says whose log this is."""
        self.say("event=attempt " + " ".join(f"{name}={value}" for name, value in who.items()))
        logging.getLogger().addHandler(self)

    def finish(self, error: BaseException | None) -> None:
        """End the log; an error's traceback is part of it."""
        logging.getLogger().removeHandler(self)
        if error is not None:
            self.say("".join(traceback.format_exception(error)))
        self.say("event=attempt_ended" if error is None else f"event=attempt_failed error={type(error).__name__}")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; called by ``logging``."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        self.say(f"{level}{record.getMessage()}" + (f"\n{record.exc_text}" if record.exc_text else ""))

    def progress(self, done: int, total: int, values: dict[str, float]) -> None:
        """Keep a reading every ten seconds, and the last one."""
        now = time.monotonic()
        if done < total and now - self._progress_at < PROGRESS_EVERY_S:
            return
        self._progress_at = now
        shown = "".join(f" {name}={value:.4g}" for name, value in values.items())
        self.say(f"event=progress done={done}/{total} percent={100 * done / max(total, 1):.0f}{shown}")

    def say(self, text: str) -> None:
        """Keep a text, one stamped line for each of its own."""
        stamp = _stamp(time.time())
        for line in mask(text).rstrip().splitlines():
            self._num_lines += 1
            (self._head if len(self._head) < HEAD_LINES else self._tail).append(f"{stamp} {line}\n")

    def save(self) -> None:
        """Write the log to the store if it has grown; raises as :meth:`Store.write` does."""
        with self._saving:
            if self._num_lines == self._num_written:
                return
            num_lines = self._num_lines
            self._store.write(self._path, self._text().encode())
            self._num_written = num_lines

    def _text(self) -> str:
        head, tail = list(self._head), list(self._tail)
        num_missing = self._num_lines - len(head) - len(tail)
        gap = [f"{tail[0].partition(' ')[0]} event=log_shortened num_lines={num_missing}\n"] if num_missing > 0 else []
        return "".join([*head, *gap, *tail])


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
