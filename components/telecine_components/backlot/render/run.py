"""Render films and write each as an mp4 with its truth beside it."""

import json
import logging

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import RetryLater
from telecine_components.backlot.render.spec import Inputs, Outputs
from telecine_components.media.encode import write_mp4
from telecine_models.backlot import film

log = logging.getLogger(__name__)


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``videos/film_0001.mp4`` and ``.json``, and so on."""
    folder = ctx.dir / "videos"
    folder.mkdir()
    for index in range(inputs.num_films):
        if ctx.stop_requested:
            raise RetryLater(f"stopped after {index} of {inputs.num_films} films")
        drawn = film(
            inputs.seed + index,
            num_frames=inputs.num_frames,
            fps=inputs.fps,
            width_px=inputs.width_px,
            height_px=inputs.height_px,
        )
        stem = folder / f"film_{index + 1:04d}"
        write_mp4(stem.with_suffix(".mp4"), drawn.frames, inputs.fps)
        stem.with_suffix(".json").write_text(json.dumps(drawn.truth, indent=1, sort_keys=True) + "\n")
        ctx.progress(index + 1, inputs.num_films)
    log.info("event=films_rendered num_films=%d num_frames=%d", inputs.num_films, inputs.num_frames)
    return Outputs(videos_uri=Artifact("videos"), num_films=inputs.num_films)
