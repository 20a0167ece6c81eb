"""toy.train: items, steps, checkpoints, metrics and outputs, each of them small, at a drill's bidding."""

import dataclasses

from telecine.component import Component
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    num_items: int = param(2, ge=0, help="Items to make.")
    num_steps: int = param(6, ge=1, help="Steps to do.")
    checkpoint_every_steps: int = param(2, ge=1, help="Steps between checkpoints.")
    file_bytes: int = param(2000, ge=0, help="Bytes of each file.")
    seed: int = param(0, ge=0, help="Decides every byte.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    model_uri: Artifact = param(help="Folder with what came out.")
    state: str = param(help="The last state.")


COMPONENT = Component(
    name="toy.train", inputs=Inputs, outputs=Outputs, entry="drill_toys.toy.train.run:run", image="train"
)
