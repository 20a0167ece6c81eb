"""deploy.report: one self-contained page about a run, and the few figures that a terminal prints."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest that curate.filter wrote (parquet).")
    funnel_uri: Artifact = param(help="Funnel that curate.filter wrote (JSON).")
    dataset_uri: Artifact = param(help="Dataset folder that curate.encode wrote.")
    training_uri: Artifact = param(help="training.json that pretrain.train wrote.")
    samples_uri: Artifact = param(help="Samples folder that evaluate.sample wrote.")
    registration_uri: Artifact = param(help="registration.json that deploy.register wrote.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    report_uri: Artifact = param(help="The page: one HTML file that needs nothing else.")
    summary_uri: Artifact = param(help="What a terminal prints about the run (JSON).")


COMPONENT = Component(
    name="deploy.report",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.deploy.report.run:run",
    image="train",
    resources=Resources(cpus=1, memory_gib=1.0),
    effects=True,
)
