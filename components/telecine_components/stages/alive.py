"""The sign of life that long work on one item gives, so that a decoder that hangs is told from one that is slow."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from telecine.reading import Folder

_EVERY_S = 1.0
_tell: Callable[[], None] | None = None
_told_s = 0.0


def beat() -> None:
    """Say that the item goes forward; cheap enough for every frame, and nothing outside a worker process."""
    global _told_s
    if _tell is not None and time.monotonic() - _told_s >= _EVERY_S:
        _told_s = time.monotonic()
        _tell()


def begin(tell: Callable[[], None], *, every_s: float) -> None:
    """From now on, have beats call ``tell``, at most every so many seconds."""
    global _tell, _EVERY_S
    _tell, _EVERY_S = tell, every_s


@contextlib.contextmanager
def at_hand(videos: Folder, files: Mapping[str, str]) -> Iterator[Path]:
    """``videos.at_hand(files)``, but the item does not count as hung while files are fetched or looked at again.

    A large file may take longer than a decoder may be silent, and a store has a patience of its own.
    """
    with contextlib.ExitStack() as stack:
        with _waiting():
            folder = stack.enter_context(videos.at_hand(files))
        try:
            yield folder
        finally:
            with _waiting():
                stack.close()


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Beat all the while, from a thread: nothing else speaks meanwhile."""
    ended = threading.Event()

    def beat_on() -> None:
        while not ended.wait(_EVERY_S / 2):
            beat()

    thread = threading.Thread(target=beat_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
