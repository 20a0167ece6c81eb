"""A line after each run; they take a minute."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def show(name: str, num_items: int, items: Iterable[Item]) -> Iterator[Item]:
    """The items, each followed by how far it is."""
    began = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        seconds = time.monotonic() - began
        eta_s = seconds / done * (num_items - done)
        print(f"{name} {done}/{num_items} elapsed={seconds:.0f}s eta={eta_s:.0f}s", file=sys.stderr, flush=True)
