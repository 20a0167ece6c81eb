"""curate.embed: what an image model makes of each kept clip, for curate.dedup and curate.balance to compare."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest that curate.filter wrote (parquet).")
    videos_uri: Artifact = param(help="Folder of video files that curate.split read.")
    encoder_uri: Artifact = param(
        help="Folder of an image model of transformers: CLIP, SigLIP, DINOv2 and the like (config.json, "
        "preprocessor_config.json, safetensors). Nothing is downloaded and no code of the folder runs."
    )
    num_frames: int = param(3, ge=1, le=64, help="Frames of a clip, evenly spaced; their mean stands for it.")
    batch_size: int = param(16, ge=1, help="Frames that the model looks at together.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    embeddings_uri: Artifact = param(help="clip_id and embedding, a vector of length 1, of each kept clip (parquet).")
    num_clips: int = param(help="Clips embedded.")
    embedding_dim: int = param(help="Numbers in an embedding.")


COMPONENT = Component(
    name="curate.embed",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.embed.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=4.0),
)
