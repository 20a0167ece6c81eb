"""What one DAG leaves for the next: Airflow Assets, each of whose events carries the outputs of the task that made it.

A DAG that is scheduled on an asset takes the event that started it. Where several came before it could start, because a
run of it was waiting, they start one run: it takes the newest and says which it passes over. Started by hand, it takes
what its Params say or, where the class of the input says so, the newest there is.
"""

import abc
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from telecine.errors import InputError

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

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

    def started(self, context: "Context") -> Any:
        """The output by the newest event that started the run, or None; the others go to the log and to XCom."""
        told = self._told(context["triggering_asset_events"])
        if told[:-1]:
            log.warning("event=superseded asset=%s %s=%s by=%s", self.asset.name, self.output, told[:-1], told[-1])
            context["ti"].xcom_push(f"superseded_{self.output}", told[:-1])
        return told[-1] if told else None

    def _told(self, events: Any) -> list[Any]:
        """The output by each event, the oldest first; Airflow gives them in no order."""
        try:
            found = sorted(events[self.asset], key=lambda event: event.timestamp)
        except KeyError:
            return []
        return [(event.extra or {}).get(self.output) for event in found]


@dataclasses.dataclass(frozen=True)
class Newest(FromAsset):
    """The Param; where it is empty, the event that started the run; else the newest event there is."""

    def resolve(self, context: "Context") -> Any:
        """See the class."""
        found = context["params"].get(self.param) or self.started(context) or self._newest(context)
        if found:
            return found
        raise InputError(
            f"there is no {self.asset.name} yet: run the DAG that makes one, or set the Param {self.param!r}"
        )

    def _newest(self, context: "Context") -> Any:
        told = self._told(context["inlet_events"])
        return told[-1] if told else None


@dataclasses.dataclass(frozen=True)
class Triggering(FromAsset):
    """The event that started the run; the Param where a person started it."""

    def resolve(self, context: "Context") -> Any:
        """See the class."""
        return self.started(context) or context["params"][self.param]
