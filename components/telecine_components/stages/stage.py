"""A stage: one step on each item, as a small value that worker processes are given."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telecine.context import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Declare one as a frozen dataclass at the top of a module, its fields plain values.

    Attributes:
        name: within its component; in the address of its items.
        params: what decides its results beside the source; in the address too.
        cpus, memory_gib, gpus: what one worker of it takes, by which Ray places as many as the cluster has room for.
    """

    name: str = "items"
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cpus: float = 1.0
    memory_gib: float = 1.0
    gpus: float = 0.0

    def setup(self) -> None:
        """Load what every item needs; called once in each worker, before its first item.

        Call ``alive.beat`` where that may take many minutes.
        """

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        """Make the item's value, and its files in ``out_dir``; call ``alive.beat`` where an item may take minutes.

        Raises:
            BadData: the source cannot be used.
        """
        raise NotImplementedError
