"""deploy.promote: carry out and record a person's decision: the alias ``champion`` moves, or it stays."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_name: str = param("telecine-flywheel", help="Registered model.")
    model_version: str = param(help="Version that was decided about, by number.")
    decision: str = param(
        "refused",
        choices=("approved", "refused", "unanswered"),
        help="What was decided; only approved moves the alias.",
    )
    asked_champion: str = param(
        "any",
        help="Champion when the question was asked (empty: there was none); an approval fails once another one is. "
        "any: do not look.",
    )
    decided_by: str = param("", help="Who decided; an approval needs a name.")
    decided_at: str = param("", help="When, as ISO 8601 in UTC.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    promotion_uri: Artifact = param(help="The decision, who made it, when, and the champion before it (JSON).")
    model_name: str = param(help="Registered model.")
    champion_version: str = param(help="The champion after the decision; empty where there is none.")
    previous_version: str = param(help="The champion before it, which a rollback promotes; empty where there was none.")


COMPONENT = Component(
    name="deploy.promote",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.deploy.promote.run:run",
    image="train",
    resources=Resources(cpus=1, memory_gib=1.0),
    effects=True,
)
