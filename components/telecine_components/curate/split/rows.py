"""From what one pass found in a file to the rows of its clips."""

import hashlib
from typing import Any

from telecine_components.curate.split.analysis import Analysis
from telecine_components.curate.split.sidecars import Sidecar
from telecine_components.curate.split.spans import clip_spans
from telecine_components.curate.split.spec import Inputs
from telecine_components.media.shots.shot import Shot


def clip_rows(found: Analysis, sidecar: Sidecar, source_digest: str, inputs: Inputs) -> list[dict[str, Any]]:
    """One row per clip, in the order of time, with every column that curate.split fills but ``source``, ``stages`` and
    ``poster``.
    """
    rows = []
    for shot in found.shots:
        spans = clip_spans(
            (shot.start, shot.end), found.edges_s, trim_frames=inputs.trim_frames, max_clip_s=inputs.max_clip_s
        )
        ends = ["clip"] * (len(spans) - 1)
        borders = zip(spans, [shot.begins_with, *ends], [*ends, shot.ends_with], strict=True)
        rows += [
            _row(found, span, sidecar, source_digest)
            | {
                "shot_id": _shot_id(source_digest, shot),
                "shot_start_frame": shot.start,
                "begins_with": begins,
                "ends_with": ends_with,
                "cut_doubt": round(shot.doubt_within(*span), 3),
            }
            for span, begins, ends_with in borders
        ]
    return rows


def _shot_id(source_digest: str, shot: Shot) -> str:
    return _id(source_digest, (shot.start, shot.end))


def _id(source_digest: str, span: tuple[int, int]) -> str:
    return hashlib.sha256(f"{source_digest}:{span[0]}-{span[1]}".encode()).hexdigest()[:16]


def _row(found: Analysis, span: tuple[int, int], sidecar: Sidecar, source_digest: str) -> dict[str, Any]:
    start, end = span
    start_s, end_s = float(found.edges_s[start]), float(found.edges_s[end])
    return {
        "clip_id": _id(source_digest, span),
        "source_digest": source_digest,
        "start_s": round(start_s, 6),
        "end_s": round(end_s, 6),
        "start_frame": start,
        "end_frame": end,
        "num_frames": end - start,
        "fps": round(found.fps_of(start, end), 6),
        "width_px": found.width_px,
        "height_px": found.height_px,
        "codec": found.codec,
        "bits_per_pixel": round(found.bits_per_pixel, 6),
        **sidecar.caption_columns(start_s, end_s),
        "licence": sidecar.licence,
        "consent": sidecar.consent,
    } | found.meter.clip(start, end)
