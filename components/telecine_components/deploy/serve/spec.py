"""deploy.serve: serve a registered version over HTTP until it is told to stop."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_name: str = param("telecine-flywheel", help="Registered model to serve.")
    alias: str = param("champion", help="Alias of the version that is served; read once, at the start.")
    host: str = param("127.0.0.1", help="Address to listen on; the page speaks plain HTTP, so keep it on this machine.")
    allowed_hosts: tuple[str, ...] = param(
        (), help="Names beside localhost and its addresses that it may be asked by, such as that of a proxy before it."
    )
    port: int = param(8000, ge=0, le=65535, help="Port to listen on; 0 is any free one, which the log names.")
    max_queue: int = param(16, ge=1, le=10_000, help="Tasks that may wait; more are turned away with 429.")
    keep_tasks: int = param(500, ge=1, le=100_000, help="Finished tasks that are kept; older ones are removed.")
    num_steps: int = param(30, ge=1, help="Steps of the solver where a request names none.")
    guidance_scale: float = param(2.0, ge=0, help="Classifier-free guidance where a request names none; 1 is none.")
    lora_scale: float = param(1.0, ge=0, help="What a LoRA beside the model's weights is multiplied with; 0 for none.")
    max_steps: int = param(100, ge=1, help="Most steps that a request may ask for.")
    max_frames: int = param(64, ge=1, help="Most frames that a request may ask for.")
    max_side_px: int = param(128, ge=1, help="Largest height and width that a request may ask for.")
    max_prompt_chars: int = param(500, ge=1, le=10_000, help="Longest prompt.")
    shown_height_px: int = param(256, ge=1, le=2160, help="Pixels are repeated until a film is about this high.")
    num_threads: int = param(2, ge=1, help="CPU threads that sample.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    service_uri: Artifact = param(help="What was served and what became of it (JSON).")
    model_version: str = param(help="The version that was served.")
    num_done: int = param(help="Films that were made.")
    num_failed: int = param(help="Tasks that failed.")
    num_cancelled: int = param(help="Tasks that were cancelled.")
    num_waiting: int = param(help="Tasks that were put back, for the next start to go on with.")


COMPONENT = Component(
    name="deploy.serve",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.deploy.serve.run:run",
    image="serve",
    resources=Resources(cpus=2, memory_gib=3.0),
    effects=True,
)
