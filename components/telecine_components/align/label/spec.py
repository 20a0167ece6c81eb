"""align.label: every film's reward and every pair's preference, from Backlot's oracle or from a person's answers."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

ANSWERS = ("A", "B", "same")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    films_uri: Artifact = param(help="Folder that align.collect wrote.")
    labeller: str = param(
        "oracle", choices=("oracle", "human"), help="Who judges: a reader of Backlot's scenes, or a person."
    )
    answers: tuple[str, ...] = param((), choices=ANSWERS, help="A person's answers in the order of the pairs.")
    answered_by: str = param("", help="Name of the person who answered.")
    tie_margin: float = param(0.02, ge=0, help="The oracle calls films the same whose rewards differ by at most this.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    labels_uri: Artifact = param(help="Reward of each labelled film, who gave it, its parts, and its pair (parquet).")
    preferences_uri: Artifact = param(help="Answer to each pair and who gave it (JSON).")
    num_labels: int = param(help="Films with a reward.")
    label_reward: float = param(help="Mean reward of the films that the model made.")
    num_ties: int = param(help="Pairs called the same.")


COMPONENT = Component(
    name="align.label",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.align.label.run:run",
    image="train",
    resources=Resources(cpus=1, memory_gib=1.0),
)
