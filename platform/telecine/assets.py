"""What one DAG leaves for the next: Airflow Assets, each of whose events carries the outputs of the task that made it.

A DAG that is scheduled on an asset takes the very event that started it. Started by hand, it takes what its Params
say or, where the class of the input says so, the newest there is.
"""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from telecine.errors import InputError

if TYPE_CHECKING:
    from airflow.sdk import Context

DATASET = Asset(name="curated_dataset", uri="telecine://curated_dataset", group="telecine")
"""Shards to train on: ``dataset_uri``."""
CHECKPOINT = Asset(name="checkpoint", uri="telecine://checkpoint", group="telecine")
"""A trained model: ``model_uri``, ``training_uri``."""
CANDIDATE = Asset(name="candidate", uri="telecine://candidate", group="telecine")
"""A registered version: ``model_name``, ``model_version``."""
CHAMPION = Asset(name="champion", uri="telecine://champion", group="telecine")
"""The version that is served: ``model_name``, ``champion_version``."""


@dataclasses.dataclass(frozen=True)
class FromAsset(abc.ABC):
    """A task's input that another DAG made.

    Attributes:
        asset: what to take it from; the task has it among its ``inlets``.
        output: the output, in the words of the component that updated the asset.
        param: the DAG's Param that a person may set instead.
    """

    asset: Asset
    output: str
    param: str

    @abc.abstractmethod
    def resolve(self, context: "Context") -> Any:
        """The value for this DAG run; raises :class:`InputError` where there is none yet."""

    def _of(self, events: Any) -> Any:
        try:
            return (events[self.asset][-1].extra or {}).get(self.output)
        except (KeyError, IndexError):
            return None


@dataclasses.dataclass(frozen=True)
class Newest(FromAsset):
    """The Param; where it is empty, the event that started the run; else the newest event there is."""

    def resolve(self, context: "Context") -> Any:
        """See the class."""
        found = context["params"].get(self.param)
        for events in ("triggering_asset_events", "inlet_events"):
            found = found or self._of(context[events])
        if found:
            return found
        raise InputError(
            f"there is no {self.asset.name} yet: run the DAG that makes one, or set the Param {self.param!r}"
        )


@dataclasses.dataclass(frozen=True)
class Triggering(FromAsset):
    """The event that started the run; the Param where a person started it."""

    def resolve(self, context: "Context") -> Any:
        """See the class."""
        return self._of(context["triggering_asset_events"]) or context["params"][self.param]
