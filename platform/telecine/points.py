"""Points of curves on their way to a tracker: taken from a training step in microseconds, sent by a thread.

A step only appends. Every ``FLUSH_S`` seconds one thread sends what has come, in few requests. Who dies by SIGKILL
loses at most the points that came after the last sending began. Those of steps up to a checkpoint are settled before
it is committed, and the steps after it are computed and logged again, so that a run that goes on misses nothing.

Racing attempts share a curve: only the attempt for which ``leads`` holds sends, the others keep their points until they
lead, and a step that was sent is not sent again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

log = logging.getLogger(__name__)

FLUSH_S = 5.0
BATCH_POINTS = 1000
"""What MLflow takes in one request."""
YIELD_S = 10.0
"""How long a winner lets its rivals see that they have lost."""
ASLEEP_S = YIELD_S - 2.0
"""A process that was silent for this long may have been stopped, and its work been done by another."""
Point = tuple[str, float, int, int]
"""Name, value, milliseconds since the epoch and step."""


class Points:
    """Points that are not yet sent, and the thread that sends them. Every method may be called by any thread.

    Args:
        send: takes points in one request, all of them or none.
        last_steps: the largest step that has arrived of each of these names, -1 where there is none.
        leads: whether this attempt may send now.
        failures: what ``send``, ``last_steps`` and ``leads`` raise when whom they ask is away.
        flush_s: time between two sendings of the thread.
        asleep_s: after a silence of this length, what has arrived is asked again.
    """

    def __init__(
        self,
        *,
        send: Callable[[Sequence[Point]], None],
        last_steps: Callable[[Set[str]], Mapping[str, int]],
        leads: Callable[[], bool],
        failures: Callable[[], tuple[type[Exception], ...]],
        flush_s: float = FLUSH_S,
        asleep_s: float = ASLEEP_S,
    ) -> None:
        self._send_batch, self._ask_last_steps, self._leads, self._failures = send, last_steps, leads, failures
        self._flush_s, self._asleep_s = flush_s, asleep_s
        self._entering = threading.Lock()  # of the next four; held for microseconds
        self._entered: list[tuple[int, int, dict[str, float]]] = []
        self._awake, self._slept = time.monotonic(), False
        self._running: tuple[threading.Thread, threading.Event] | None = None
        self._sending = threading.Lock()  # of the next two; held while the tracker is waited for
        self._unsent: list[Point] = []
        self._last_steps: dict[str, int] = {}

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Take the values of a step; never waits for the tracker."""
        entry = (time.time_ns() // 1_000_000, step, {name: float(value) for name, value in values.items()})
        with self._entering:
            self._look_at_the_clock()
            self._entered.append(entry)
            if self._running is None:
                closing = threading.Event()
                thread = threading.Thread(target=self._keep_sending, args=(closing,), name="points", daemon=True)
                thread.start()
                self._running = thread, closing

    def settle(self) -> list[Point]:
        """Send what has come so far, if this attempt leads; returns what it keeps."""
        with self._sending:
            self._take_in()
            if self._unsent and self._leads():
                self._send()
            return list(self._unsent)

    def settle_all(self) -> None:
        """Send all that is left, whoever leads."""
        with self._sending:
            self._take_in()
            self._last_steps.clear()
            self._send()

    def flush(self) -> None:
        """Like :meth:`settle`; what the tracker does not take now stays for the next time."""
        try:
            self.settle()
        except self._failures() as error:
            what = str(error).partition("\n")[0]
            log.warning("event=tracker_away points=%d error=%r", len(self._unsent), what)

    def resume(self, points: Iterable[Sequence[Any]]) -> None:
        """Take over the points that an attempt before this one could not send; what was sent is not sent again."""
        with self._sending:
            self._take_in()
            self._unsent = [*((name, value, moment, step) for name, value, moment, step in points), *self._unsent]

    def close(self) -> None:
        """End the thread; what it has not sent stays for :meth:`settle`."""
        with self._entering:
            running, self._running = self._running, None
        if running is not None:
            thread, closing = running
            closing.set()
            thread.join()

    def _keep_sending(self, closing: threading.Event) -> None:
        while not closing.wait(self._flush_s):
            self.flush()

    def _take_in(self) -> None:
        with self._entering:
            self._look_at_the_clock()
            entered, self._entered = self._entered, []
            if self._slept:
                self._slept = False
                self._last_steps.clear()
        self._unsent += [
            (name, value, moment, step) for moment, step, values in entered for name, value in values.items()
        ]

    def _look_at_the_clock(self) -> None:
        """Notice a sleep in which another attempt may have taken the lead: what was sent is then asked anew."""
        now = time.monotonic()
        self._slept = self._slept or now - self._awake > self._asleep_s
        self._awake = now

    def _send(self) -> None:
        fresh = self._fresh()
        for start in range(0, len(fresh), BATCH_POINTS):
            batch = fresh[start : start + BATCH_POINTS]
            try:
                self._send_batch(batch)
            except BaseException:
                self._last_steps.clear()  # it may have arrived and the reply be lost
                raise
            self._last_steps.update((name, step) for name, _, _, step in batch)
        self._unsent.clear()

    def _fresh(self) -> list[Point]:
        """What is not there yet, each step of a name once, in the order of steps: a failure leaves no gap behind it."""
        unknown = {name for name, _, _, _ in self._unsent} - self._last_steps.keys()
        if unknown:
            self._last_steps.update(self._ask_last_steps(unknown))
        first: dict[tuple[int, str], Point] = {}
        for point in self._unsent:
            if point[3] > self._last_steps[point[0]]:
                first.setdefault((point[3], point[0]), point)
        return [first[key] for key in sorted(first)]
