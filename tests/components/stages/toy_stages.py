"""Stages that do what a decoder may do to the process it runs in."""

import contextlib
import ctypes
import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from threadpoolctl import threadpool_info

from telecine.context import Folder, Item, Source
from telecine.errors import BadData, InputError
from telecine_components.stages import alive
from telecine_components.stages.stage import Stage


class SlowFolder(Folder):
    """In a bucket far away."""

    @contextlib.contextmanager
    def at_hand(self, files: Mapping[str, str]) -> Iterator[Path]:
        """Takes longer than a stall on the way in and on the way out."""
        time.sleep(1.5)
        yield self.home
        time.sleep(1.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Stage):
    """Writes down each start in ``log``, then does what the source's name says.

    Attributes:
        setup_s: how long it is set up, and ``setup_beat_s``, how often it gives a sign of life meanwhile; 0 never.
    """

    log: Path
    item_s: float = 0.0
    setup_s: float = 0.0
    setup_beat_s: float = 0.0
    word: str = ""

    def setup(self) -> None:
        self._note("setup")
        ends_s = time.monotonic() + self.setup_s
        while (left_s := ends_s - time.monotonic()) > 0:
            time.sleep(min(left_s, self.setup_beat_s or left_s))
            alive.beat()

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        self._note(source.name)
        verb = source.name.partition("-")[0]
        getattr(self, verb, self.good)(source)
        (out_dir / "name.txt").write_text(source.name)
        before = source.given.value["text"] if isinstance(source.given, Item) else ""
        return {"text": f"{before}{self.name}:{source.name}{self.word};"}

    def good(self, _: Source) -> None:
        time.sleep(self.item_s)

    def slow(self, _: Source) -> None:
        """Longer than a stall, with signs of life."""
        for _beat in range(20):
            time.sleep(0.1)
            alive.beat()

    def fetch(self, _: Source) -> None:
        """What a decoder is given by a slow store."""
        with alive.at_hand(SlowFolder("", store_uri="", home=self.log.parent), {}):
            self._note("fetched")

    def fetchhang(self, source: Source) -> None:
        """In the decoder, of what was fetched."""
        with alive.at_hand(SlowFolder("", store_uri="", home=self.log.parent), {}):
            self.hang(source)

    def meet(self, source: Source) -> None:
        """Wait until four workers are at such items in the same stage."""
        self.log.with_name(f"{self.name}-{source.name}").touch()
        deadline = time.monotonic() + 60
        while len(list(self.log.parent.glob(f"{self.name}-meet-*"))) < 4:
            assert time.monotonic() < deadline, "met nobody"
            alive.beat()
            time.sleep(0.01)

    def multiply(self, _: Source) -> None:
        """Write down how many threads share a product of matrices, and how many a library loaded now would take."""
        np.ones((64, 64)) @ np.ones((64, 64))
        threads = {each["num_threads"] for each in threadpool_info()}
        self._note(f"threads:{sorted(threads)}:{os.environ['OMP_NUM_THREADS']}".replace(" ", ""))

    def hang(self, source: Source) -> None:
        """In a real decoder, which waits in C for a pipe that nobody writes to."""
        pipe = self.log.with_name(f"{source.name}.mp4")
        if not pipe.exists():
            os.mkfifo(pipe)
        av.open(str(pipe))

    def freeze(self, _: Source) -> None:
        """In C that keeps the interpreter's lock, so that no other thread of the process runs either."""
        ctypes.PyDLL(None).sleep(1000)

    def crash(self, _: Source) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def crashonce(self, source: Source) -> None:
        if self.log.read_text().split().count(source.name) == 1:
            os.kill(os.getpid(), signal.SIGSEGV)

    def bad(self, _: Source) -> None:
        raise BadData("it is bad")

    def wrong(self, _: Source) -> None:
        raise InputError("toy: this can never work")

    def bug(self, _: Source) -> None:
        raise KeyError("a bug")

    def _note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"{text}\n")
