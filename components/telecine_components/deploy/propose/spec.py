"""deploy.propose: settle which version is meant, and write down what a person has to know before promoting it."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_name: str = param("telecine-flywheel", help="Registered model.")
    model_version: str = param("", help="Version that is proposed; empty is the one behind the alias.")
    alias: str = param("candidate", help="Alias that names the version where no number is given.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    card_uri: Artifact = param(help="The version's figures and lineage beside the champion's (Markdown).")
    card: str = param(help="The same text, for a page that asks.")
    model_name: str = param(help="Registered model.")
    model_version: str = param(help="The proposed version, by number: an alias may move while a person thinks.")
    model_source: str = param(help="Where its pipeline folder lies.")
    settled: str = param(help="Why nobody needs to be asked about it (again); empty where somebody does.")
    champion_version: str = param(help="The champion when the proposal was made; empty where there was none.")


COMPONENT = Component(
    name="deploy.propose",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.deploy.propose.run:run",
    image="train",
    resources=Resources(cpus=1, memory_gib=1.0),
    effects=True,
)
