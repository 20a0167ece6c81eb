"""Shoot clips and write each as an mp4 with sound, its truth beside it and in one table."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import RetryLater
from telecine_components.backlot.shoot.spec import STYLES, SUBJECTS, Inputs, Outputs
from telecine_components.media.encode import Sound, write_mp4
from telecine_models.backlot import Clip, clip
from telecine_models.backlot.defects import GRADED_DEFECTS
from telecine_models.backlot.physics import PHYSICS, VIOLATIONS

log = logging.getLogger(__name__)

SOUND_RATE_HZ = 16_000
# So that what a clip is asked for shares no random numbers with what is in it.
_ORDER_STREAM = 5


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``videos/clip_00001.mp4``, ``.json`` and ``.npz``, and so on, and ``videos/truth.parquet``."""
    folder = ctx.dir / "videos"
    folder.mkdir()
    rows = []
    for index in range(inputs.num_clips):
        if ctx.stop_requested:
            raise RetryLater(f"stopped after {index} of {inputs.num_clips} clips")
        shot = _shoot(inputs, index)
        stem = folder / f"clip_{index + 1:05d}"
        _write(stem, shot, inputs.fps)
        rows.append(_row(stem.name, shot))
        ctx.progress(index + 1, inputs.num_clips)
    pq.write_table(pa.Table.from_pylist(rows), folder / "truth.parquet")
    log.info("event=clips_shot num_clips=%d num_frames=%d", inputs.num_clips, inputs.num_frames)
    return Outputs(
        videos_uri=Artifact("videos"),
        num_clips=inputs.num_clips,
        num_implausible=sum(row["plausible"] is False for row in rows),
        num_spoilt=sum(bool(row["defects"]) for row in rows),
    )


def _shoot(inputs: Inputs, index: int) -> Clip:
    seed = inputs.seed + index
    rng = np.random.default_rng((seed, _ORDER_STREAM))
    kinds = SUBJECTS[:-1]
    subject = kinds[index % len(kinds)] if inputs.subject == "any" else inputs.subject
    order: dict[str, Any] = {"style": None if inputs.style == STYLES[-1] else inputs.style}
    physics = PHYSICS[rng.integers(len(PHYSICS))]
    violation = VIOLATIONS[physics][rng.integers(len(VIOLATIONS[physics]))]
    is_broken, is_spoilt = rng.uniform(size=2) < (inputs.violation_ratio, inputs.defect_ratio)
    defect = (GRADED_DEFECTS[rng.integers(len(GRADED_DEFECTS))], float(np.round(rng.uniform(0.05, 1.0), 3)))
    if subject == "play":
        order["actions"] = "random"
    if subject == "physics":
        order |= {"physics": physics, "violation": violation if is_broken else None}
    return clip(
        seed,
        num_frames=inputs.num_frames,
        fps=inputs.fps,
        width_px=inputs.width_px,
        height_px=inputs.height_px,
        defects=(defect,) if is_spoilt else (),
        **order,
    )


def _write(stem: Path, shot: Clip, fps: int) -> None:
    """The film with its sound, what is true of it in words, and what is true of every pixel and frame in numbers."""
    sound = Sound(shot.sound(SOUND_RATE_HZ), SOUND_RATE_HZ)
    write_mp4(stem.with_suffix(".mp4"), shot.frames, fps, sound=sound)
    stem.with_suffix(".json").write_text(json.dumps(shot.truth, indent=1, sort_keys=True) + "\n")
    arrays: dict[str, Any] = {
        "depth": shot.depth,
        "instances": shot.instances,
        "poses": shot.poses,
        "intrinsics": shot.intrinsics,
    }
    if shot.actions is not None:
        arrays |= {"keys": shot.actions.keys, "mouse_deg": shot.actions.mouse_deg}
    np.savez_compressed(stem.with_suffix(".npz"), allow_pickle=False, **arrays)


def _row(name: str, shot: Clip) -> dict[str, Any]:
    truth = shot.truth
    physics = truth["physics"] or {}
    parts = {f"caption_{part}": text for part, text in truth["structured_caption"].items()}
    return {
        "video": f"{name}.mp4",
        "seed": truth["seed"],
        "licence": truth["licence"],
        "consent": truth["consent"],
        "style": truth["style"],
        "camera": truth["camera"]["move"] if truth["camera"] else None,
        "is_played": shot.actions is not None,
        "scenario": physics.get("scenario"),
        "plausible": physics.get("plausible"),
        "violation": physics.get("violation"),
        "defects": [defect["kind"] for defect in truth["defects"]],
        "severities": [float(defect["severity"]) for defect in truth["defects"]],
        "events": [dataclasses.asdict(event) for event in shot.events],
        "caption": truth["caption"],
        **parts,
    }
