"""caption.write: say in six parts what each kept clip shows, by a captioner of choice."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

CAPTIONERS = ("signals", "openai")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The key of an endpoint comes from the environment alone: OPENAI_API_KEY."""

    clips_uri: Artifact = param(help="Manifest of clips (parquet), of curate.split or any step after it.")
    videos_uri: Artifact = param(help="Folder of video files that curate.split read.")
    captioner: str = param(
        "signals",
        choices=CAPTIONERS,
        help="signals says what can be measured, offline; openai asks a model behind an OpenAI-compatible endpoint.",
    )
    replace: bool = param(False, help="Whether captions that lay beside the videos are replaced too.")
    endpoint_url: str = param(
        "",
        keyed=False,
        needed_with=("captioner", "openai"),
        help="openai: base URL of the endpoint, as http://127.0.0.1:8000/v1 (vLLM).",
    )
    model: str = param("", needed_with=("captioner", "openai"), help="openai: name of the model there.")
    num_frames: int = param(8, ge=1, help="openai: frames that are sent of each window.")
    frame_side_px: int = param(512, ge=64, help="openai: longer side of a frame that is sent; none is enlarged.")
    window_frames: int = param(256, ge=4, help="openai: a longer clip is captioned in windows of so many frames.")
    min_window_frames: int = param(128, ge=1, help="openai: a shorter rest is no window of its own; it joins the last.")
    max_answer_tokens: int = param(768, ge=64, help="openai: an answer that is longer is cut off and asked for again.")
    max_tries: int = param(3, ge=1, help="openai: how often a clip is asked about before signals caption it.")
    max_in_flight: int = param(8, ge=1, keyed=False, help="openai: how many clips are asked about at the same time.")
    num_workers: int = param(1, ge=1, keyed=False, help="Processes that decode, where no Ray cluster does.")
    stall_s: float = param(120.0, gt=0, keyed=False, help="Silence after which a decoder counts as hung.")
    timeout_s: float = param(120.0, gt=0, keyed=False, help="openai: an answer that is not whole by then has failed.")


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
    max_ray_workers=1000,
)
