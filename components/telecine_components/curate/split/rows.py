"""From what one pass found in a file to the rows of its clips."""

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from telecine.errors import BadData
from telecine_components.curate.split.analysis import Analysis
from telecine_components.curate.split.sidecars import Sidecar
from telecine_components.curate.split.spec import Inputs
from telecine_components.curate.split.transitions import Rule, clip_spans, shots, transition_pairs


def clip_rows(found: Analysis, sidecar: Sidecar, source_digest: str, inputs: Inputs) -> list[dict[str, Any]]:
    """One row per clip, in the order of time, with every column of the manifest but ``source`` and ``reason``.

    Raises:
        BadData: no two successive frames are alike.
    """
    rule = Rule(**{field.name: getattr(inputs, field.name) for field in dataclasses.fields(Rule)})
    num_frames = len(found.times_s)
    max_frames = max(1, math.floor(inputs.max_clip_s * found.fps))
    spans = [
        (span, shot)
        for shot in shots(transition_pairs(found.similarity, rule))
        for span in clip_spans(shot, num_frames, trim_frames=inputs.trim_frames, max_frames=max_frames)
    ]
    if not spans:
        raise BadData("no shot: every frame differs from the one before")
    rows = [_row(found, span, sidecar, source_digest) for span, _ in spans]
    return [row | {"shot_id": _id(source_digest, shot)} for row, (_, shot) in zip(rows, spans, strict=True)]


def _id(source_digest: str, span: tuple[int, int]) -> str:
    return hashlib.sha256(f"{source_digest}:{span[0]}-{span[1]}".encode()).hexdigest()[:16]


def _row(found: Analysis, span: tuple[int, int], sidecar: Sidecar, source_digest: str) -> dict[str, Any]:
    start, end = span
    start_s = float(found.times_s[start])
    end_s = float(found.times_s[end]) if end < len(found.times_s) else found.end_s
    moved = found.motion[start : end - 1]
    return {
        "clip_id": _id(source_digest, span),
        "source_digest": source_digest,
        "start_s": round(start_s, 6),
        "end_s": round(end_s, 6),
        "start_frame": start,
        "end_frame": end,
        "num_frames": end - start,
        "fps": round(found.fps, 6),
        "width_px": found.width_px,
        "height_px": found.height_px,
        "motion": round(float(moved.mean()) * found.fps if len(moved) else 0.0, 6),
        "blur": round(float(np.median(found.blur[start:end])), 6),
        "exposure": round(float(found.exposure[start:end].mean()), 6),
        **sidecar.caption_columns(start_s, end_s),
        "licence": sidecar.licence,
        "consent": sidecar.consent,
    }
