"""The clips that curation has kept so far, by the file that they are in."""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from telecine.context import Context
from telecine.errors import InputError

Rows = list[dict[str, Any]]


def by_source(rows: Rows, wanted: Callable[[dict[str, Any]], Any] = lambda row: True) -> dict[str, Rows]:
    """The kept clips that are wanted, by source, in the order of time."""
    kept = [row for row in rows if row["reason"] is None and wanted(row)]
    kept.sort(key=lambda row: (row["source"], row["start_frame"]))
    return {name: list(group) for name, group in itertools.groupby(kept, key=lambda row: str(row["source"]))}


def check_unchanged(ctx: Context, path: Path, digest: str) -> None:
    """Raise :class:`InputError` where a video is not the one that its clips were found in."""
    if not path.is_file() or ctx.digest(path) != digest:
        state = "differs from" if path.is_file() else "is missing from"
        raise InputError(
            f"{ctx.component}: {path.name} {state} what clips_uri describes; give the same videos_uri to "
            f"curate.split and {ctx.component}, and run curate.split again where videos changed"
        )


def digest_of(rows: Rows, columns: Sequence[str]) -> str:
    """Of a video and of these columns of its clips."""
    parts = [rows[0]["source_digest"], *([row[name] for name in columns] for row in rows)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
