"""The sign of life that long work on one item gives, so that a decoder that hangs is told from one that is slow."""

import time
from collections.abc import Callable

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
