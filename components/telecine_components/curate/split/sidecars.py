"""What lies beside a video and describes it: ``<stem>.json`` (truth by shot) or ``<stem>.txt`` (one caption)."""

import dataclasses
import json
from collections.abc import Container
from pathlib import Path, PurePosixPath
from typing import Any

from telecine.errors import BadData


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """Captions by time, and the rights that the file carries; empty strings where nothing is known."""

    shots: tuple[tuple[float, float, str], ...] = ()
    caption: str = ""
    licence: str = ""
    consent: str = ""

    def caption_of(self, start_s: float, end_s: float) -> str:
        """Caption of the shot with the longest overlap with the span, else the caption of the whole file."""
        overlaps = [(min(end_s, end) - max(start_s, start), caption) for start, end, caption in self.shots]
        longest, caption = max(overlaps, key=lambda overlap: overlap[0], default=(0.0, ""))
        return caption if longest > 0 else self.caption


def sidecar_name(video: str, names: Container[str]) -> str | None:
    """Which of a folder's names is the sidecar of a video; JSON wins where both exist."""
    stem = PurePosixPath(video)
    return next((name for suffix in (".json", ".txt") if (name := str(stem.with_suffix(suffix))) in names), None)


def read_sidecar(path: Path | None) -> Sidecar:
    """Read a sidecar.

    Raises:
        BadData: it is there but is not what it should be; rights that cannot be read are no rights.
    """
    if path is None:
        return Sidecar()
    try:
        text = path.read_text(encoding="utf-8")
        return _from_json(json.loads(text)) if path.suffix == ".json" else Sidecar(caption=text.strip())
    except UnicodeDecodeError:
        raise BadData(f"sidecar {path.suffix} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadData(f"sidecar .json is not valid JSON: {error.msg} in line {error.lineno}") from None


def _from_json(truth: Any) -> Sidecar:
    if not isinstance(truth, dict):
        raise BadData(f"sidecar .json must hold an object, got {type(truth).__name__}")
    try:
        shots = tuple(
            (float(shot["start_s"]), float(shot["end_s"]), str(shot.get("caption") or ""))
            for shot in truth.get("shots", ())
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadData("sidecar .json must give each of its shots start_s and end_s in seconds") from None
    texts = (str(truth.get(name) or "") for name in ("caption", "licence", "consent"))
    return Sidecar(shots, *texts)
