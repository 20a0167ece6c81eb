"""What lies beside a video and describes it: ``<stem>.json`` (truth by shot) or ``<stem>.txt`` (one caption)."""

import dataclasses
import json
import math
from collections.abc import Container, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from telecine.errors import BadData
from telecine_components.media.clips import PARTS


@dataclasses.dataclass(frozen=True)
class Words:
    """What is said of a span: one text, and six parts where the sidecar has them; empty where it says nothing."""

    caption: str = ""
    parts: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What is said of each shot (start and end in seconds) and of the file, and the rights that it carries."""

    shots: tuple[tuple[float, float, Words], ...] = ()
    whole: Words = Words()
    licence: str = ""
    consent: str = ""

    def caption_columns(self, start_s: float, end_s: float) -> dict[str, Any]:
        """Columns of the manifest for a span: words of the shot with the longest overlap, else those of the file."""
        overlaps = [(min(end_s, end) - max(start_s, start), words) for start, end, words in self.shots]
        longest, words = max(overlaps, key=lambda overlap: overlap[0], default=(0.0, self.whole))
        words = words if longest > 0 else self.whole
        return {
            "caption": words.caption,
            "captions": words.parts,
            "captioner": "sidecar" if words.caption else None,
        }


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
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        return _from_json(_parsed(text)) if path.suffix == ".json" else Sidecar(whole=Words(text.strip()))
    except UnicodeError:
        raise BadData(f"sidecar {path.suffix} is not UTF-8") from None


def _parsed(text: str) -> Any:
    """The value of a JSON text, all whose strings can be written again; JSON can spell halves of characters."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadData(f"sidecar .json is not valid JSON: {error.msg} in line {error.lineno}") from None
    except UnicodeError:
        raise
    except (RecursionError, ValueError):
        raise BadData("sidecar .json is nested too deeply, or holds a number of too many digits") from None
    return value


def _from_json(truth: Any) -> Sidecar:
    if not isinstance(truth, dict):
        raise BadData(f"sidecar .json must hold an object, got {type(truth).__name__}")
    try:
        shots = tuple(
            (_seconds(shot["start_s"]), _seconds(shot["end_s"]), _words(shot)) for shot in truth.get("shots", ())
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise BadData("sidecar .json must give each of its shots start_s and end_s in seconds") from None
    licence, consent = (str(truth.get(name) or "") for name in ("licence", "consent"))
    return Sidecar(shots, _words(truth), licence, consent)


def _seconds(value: Any) -> float:
    if not math.isfinite(seconds := float(value)):
        raise ValueError(seconds)
    return seconds


def _words(truth: Mapping[str, Any]) -> Words:
    """``caption``, else the dense part of ``structured_caption``, and its six parts if none is empty."""
    structured = truth.get("structured_caption")
    given = structured if isinstance(structured, dict) else {}
    parts = {part: str(given.get(part) or "").strip() for part in PARTS}
    caption = str(truth.get("caption") or "").strip() or parts["dense"]
    return Words(caption, parts if all(parts.values()) else None)
