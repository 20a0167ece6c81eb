"""caption.write: say in six parts what each kept clip shows, by a captioner of choice."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

CAPTIONERS = ("signals",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest of clips (parquet), of curate.split or any step after it.")
    videos_uri: Artifact = param(help="Folder of video files that curate.split read.")
    captioner: str = param(
        "signals",
        choices=CAPTIONERS,
        help="signals says what can be measured, offline.",
    )
    replace: bool = param(False, help="Whether captions that lay beside the videos are replaced too.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(help="The same manifest with caption, captions and captioner of each kept clip.")
    faults_uri: Artifact = param(help="Clips that the captioner asked for did not caption, with reasons (JSON).")
    num_captioned: int = param(help="Kept clips with a caption.")
    num_sidecar: int = param(help="Of these, how many kept the caption that lay beside the video.")
    num_faults: int = param(help="Clips that fell back to signals, or could not be decoded.")
    num_output_tokens: int = param(help="Tokens that a language model wrote for them, whenever it did.")


COMPONENT = Component(
    name="caption.write",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.caption.write.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
