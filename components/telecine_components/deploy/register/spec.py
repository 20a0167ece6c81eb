"""deploy.register: a trained model becomes a version in the MLflow registry, with the alias ``candidate``."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_uri: Artifact = param(help="Pipeline folder that a trainer wrote.")
    training_uri: Artifact = param(help="The trainer's report on it: training.json or tuning.json.")
    dataset_uri: Artifact = param(
        "",
        help="Dataset folder it was trained on; empty takes the one that the training read, another one is refused.",
    )
    model_name: str = param("telecine-flywheel", help="Registered model that gets the version.")
    alias: str = param("candidate", help="Alias that then points to the version.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    registration_uri: Artifact = param(help="Name, version, alias, digests and lineage (JSON).")
    model_name: str = param(help="Registered model.")
    model_version: str = param(help="Its version with these weights.")


COMPONENT = Component(
    name="deploy.register",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.deploy.register.run:run",
    image="train",
    resources=Resources(cpus=1, memory_gib=1.0),
    effects=True,
)
