"""Registered versions as the components of this area see them: which one an alias or a number means, and its facts."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from telecine.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
DECISION_TAG = "telecine.promotion_decision"
"""Tag of a version that a person has decided about, or let pass."""
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One registered version: where its pipeline folder lies, what was said of it, and its tags."""

    name: str
    version: str
    source: str
    description: str
    tags: Mapping[str, str]


def find(client: "MlflowClient", name: str, *, version: str = "", alias: str = "", owner: str) -> Version:
    """The version with this number, else the one behind this alias.

    Raises:
        InputError: where the registry has no such version; ``owner`` opens the message.
    """
    wanted = f"version {version}" if version else f"version with the alias {alias!r}"
    try:
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        raise InputError(
            f"{owner}: MLflow has no {wanted} of {name!r}; make demo registers a candidate, and the DAG promote_model "
            "makes it the champion"
        ) from None
    return Version(
        name=name,
        version=str(found.version),
        source=str(found.source),
        description=str(found.description or ""),
        tags=dict(found.tags),
    )


def champion_of(client: "MlflowClient", name: str) -> str:
    """Number of the version that is champion now; empty where none is."""
    return str(client.get_registered_model(name).aliases.get(CHAMPION, ""))
