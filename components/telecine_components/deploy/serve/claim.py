"""Which one process serves a model from a store: two would run each other's tasks.

Claims are the objects ``services/<model>/claims/<number>.json``, and the one with the highest number holds. Only one
of many racers can create a number, and whoever made one looks again: an older number than the newest is none.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from telecine.context import Context
from telecine.errors import InputError, RetryLater
from telecine.storage import to_json
from telecine.work import attempts

log = logging.getLogger(__name__)

LOOK_S = 5.0


class Claim:
    """The claim of this attempt, for as long as nobody has taken it over.

    Raises:
        InputError: a live attempt serves the model already.
    """

    def __init__(self, ctx: Context, root: str) -> None:
        self._store, self._root = ctx.store, root
        self._own = {"work": f"work/{ctx.component}/{ctx.key}", "attempt": ctx.attempt}
        self._ended = threading.Event()
        number = self._taken()
        for older in self._numbers():
            if older < number:
                self._store.delete(self._path(older))

    def watch(self, *, on_loss: Callable[[], None], look_s: float = LOOK_S) -> None:
        """Look now and then, until :meth:`unwatch`; raises :class:`InputError` once another service has taken over."""
        while not self._ended.wait(look_s):
            try:
                holder = self._newest()[1]
            except RetryLater as away:  # a store that is away hands nobody a claim either
                log.warning("event=claim_unseen error=%r", str(away))
                continue
            if holder != self._own:
                on_loss()
                raise InputError(f"deploy.serve: another service has taken {self._root} over; stop one of the two")

    def unwatch(self) -> None:
        """End :meth:`watch`."""
        self._ended.set()

    def _taken(self) -> int:
        """Number of the claim that this attempt has made, and that was the newest afterwards."""
        while True:
            newest, holder = self._newest()
            self._refuse_beside(holder)
            number = newest + 1
            made = self._store.create(self._path(number), to_json(self._own)) or self._read(number) == self._own
            if made and self._newest()[0] == number:
                return number

    def _refuse_beside(self, holder: Any) -> None:
        state = attempts.state(self._store, holder["work"], holder["attempt"]) if holder else None
        if state is not None and attempts.is_alive(state):
            raise InputError(
                f"deploy.serve: {self._root} is served by process {state['pid']} on {state['host']}; stop that one "
                "first"
            )

    def _newest(self) -> tuple[int, Any]:
        """The highest number and what its claim says; 0 and None where there is no claim."""
        number = max(self._numbers(), default=0)
        return number, self._read(number) if number else None

    def _numbers(self) -> list[int]:
        return [int(PurePosixPath(entry.path).stem) for entry in self._store.entries(f"{self._root}/claims")]

    def _read(self, number: int) -> Any:
        return self._store.read_json(self._path(number))

    def _path(self, number: int) -> str:
        return f"{self._root}/claims/{number:08d}.json"
