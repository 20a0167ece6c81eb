"""The nodes of one piece of work. The first does it; the others follow, lending it their processors and memory.

Kubeflow Trainer starts the same command on every node and says in ``PET_…``, the variables of torchrun, which one it is
and where the first one is met. A node that follows makes no attempt, tracks nothing and commits nothing: it runs the
component's ``follower`` beside the first node's ``entry``.
"""

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from telecine.component import Component
from telecine.errors import InputError
from telecine.reading import Reader


@dataclasses.dataclass(frozen=True)
class Nodes:
    """This node among those of a job; by default one that nobody else knows.

    Attributes:
        number: from 0, which leads.
        count: how many there are.
        address: ``tcp://host:port`` where the first one is met.
    """

    number: int = 0
    count: int = 1
    address: str = ""

    @property
    def follows(self) -> bool:
        """Whether another node leads."""
        return self.number > 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Nodes":
        """What Trainer's torch runtime says; raises :class:`InputError` where it says half of it."""
        count = environment.get("PET_NNODES", "1").rpartition(":")[2] or "1"
        if count == "1":
            return cls()
        try:
            place = f"tcp://{environment['PET_MASTER_ADDR']}:{int(environment['PET_MASTER_PORT'])}"
            found = cls(int(environment["PET_NODE_RANK"]), int(count), place)
        except (KeyError, ValueError) as error:
            needed = "PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT"
            raise InputError(f"PET_NNODES={count} needs {needed}: {type(error).__name__} {error}") from None
        if not 0 <= found.number < found.count:
            raise InputError(f"PET_NODE_RANK must be from 0 to below PET_NNODES={count}, got {found.number}")
        return found


@dataclasses.dataclass(frozen=True)
class Follower:
    """What a component's follower is given beside the inputs: a way to read them."""

    reader: Reader

    def fetch(self, uri: str) -> Path:
        """Local, read-only path of an artifact; downloaded where the store is remote."""
        return self.reader.fetch(uri)

    def path(self, store_path: str) -> Path:
        """Local, read-only path of a file or folder named relative to the store's root."""
        return self.reader.path(store_path)


def load_follower(component: Component) -> Callable[[Any, Follower], None]:
    """Import what a node that follows runs; raises :class:`InputError` where a component has nothing for it."""
    if not component.follower:
        raise InputError(f"{component.name} runs on one node, and this is another of several; start it as a Job")
    module, _, function = component.follower.partition(":")
    loaded: Callable[[Any, Follower], None] = getattr(importlib.import_module(module), function)
    return loaded
