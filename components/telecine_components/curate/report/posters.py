"""Posters for the page: as they are while they fit into its budget, else shrunk to what each may take."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from telecine.errors import InputError

WIDTHS_PX = (640, 480, 320, 240, 160)
"""Of a shrunk strip, the widest first."""
QUALITY = 55

_PROBES = 16
_URI = {"JPEG": "data:image/jpeg;base64,", "WEBP": "data:image/webp;base64,"}


def read_poster(path: Path) -> Image.Image:
    """The strip of frames at ``path``.

    Raises:
        InputError: no picture, or one of a kind that no step of ours writes.
    """
    try:
        with Image.open(path, formats=["JPEG"]) as picture:
            picture.draft("RGB", (WIDTHS_PX[0], 1))
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"curate.report: a poster must be a JPEG, got {path.name}: {error}; run curate.split again with --force"
        ) from None


def data_uris(paths: Sequence[Path | None], *, budget_bytes: int) -> list[str | None]:
    """A data URI per poster, together at most ``budget_bytes`` long.

    Where they do not fit as they are, all are shrunk to the largest of :data:`WIDTHS_PX` that fits. Where not even the
    smallest does, clips that are spread evenly have one and the others None.
    """
    there = [path for path in paths if path is not None]
    if sum(_length(path.stat().st_size) for path in there) <= budget_bytes:
        uris = {path: _URI["JPEG"] + base64.b64encode(path.read_bytes()).decode() for path in there}
    else:
        uris = _within(there, budget_bytes)
    return [None if path is None else uris.get(path) for path in paths]


def _within(paths: Sequence[Path], budget_bytes: int) -> dict[Path, str]:
    """Shrunk posters that fit. The probes may be smaller than the rest, so what is used is counted as well."""
    probes = paths[:: max(1, len(paths) // _PROBES)]
    for width in WIDTHS_PX:
        mean = sum(len(_shrunk(path, width)) for path in probes) / len(probes)
        if mean * len(paths) <= budget_bytes:
            break
    num_wanted = min(len(paths), int(budget_bytes / mean))
    uris: dict[Path, str] = {}
    left = budget_bytes
    for place in range(num_wanted):
        path = paths[place * len(paths) // num_wanted]
        uri = _shrunk(path, width)
        if len(uri) <= left:
            uris[path] = uri
            left -= len(uri)
    return uris


def _shrunk(path: Path, width_px: int) -> str:
    picture = read_poster(path)
    height_px = max(1, round(picture.height * width_px / picture.width))
    stream = io.BytesIO()
    picture.resize((width_px, height_px), Image.Resampling.BILINEAR).save(
        stream, format="WEBP", quality=QUALITY, method=2
    )
    return _URI["WEBP"] + base64.b64encode(stream.getvalue()).decode()


def _length(num_bytes: int) -> int:
    """Of a data URI that holds so many bytes."""
    return len(_URI["JPEG"]) + 4 * ((num_bytes + 2) // 3)
