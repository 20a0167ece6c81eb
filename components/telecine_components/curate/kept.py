"""The clips that curation has kept so far, by the file that they are in."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from telecine.context import Folder, Source
from telecine.errors import InputError
from telecine.reading import is_sha256
from telecine_components.stages import alive

Rows = list[dict[str, Any]]


def by_source(rows: Rows, wanted: Callable[[dict[str, Any]], Any] = lambda row: True) -> dict[str, Rows]:
    """The kept clips that are wanted, by source, in the order of time."""
    kept = [row for row in rows if row["reason"] is None and wanted(row)]
    kept.sort(key=lambda row: (row["source"], row["start_frame"]))
    return {name: list(group) for name, group in itertools.groupby(kept, key=lambda row: str(row["source"]))}


def sources_of(wanted: dict[str, Rows], videos: Folder, columns: Sequence[str], *, owner: str) -> list[Source]:
    """A source for each video, which is made of these columns of its clips and has them at hand.

    Raises:
        InputError: a video is missing, or is not the one that its clips were found in.
    """
    digests, sources = videos.digests(), []
    for name, rows in wanted.items():
        _check_unchanged(name, digests.get(name), rows[0]["source_digest"], owner)
        given = [{column: row[column] for column in ("source_digest", *columns)} for row in rows]
        sources.append(Source(name, digest_of(rows, columns), given={"mark": digests[name], "rows": given}))
    return sources


@contextlib.contextmanager
def at_hand(source: Source, videos: Folder, *, owner: str) -> Iterator[tuple[Path, Rows]]:
    """A source's video, and its rows; raises as :func:`sources_of` where that could not know yet."""
    rows = source.given["rows"]
    with alive.at_hand(videos, {source.name: source.given["mark"]}) as folder:
        path = folder / source.name
        _check_unchanged(source.name, videos.digest(path), rows[0]["source_digest"], owner)
        yield path, rows


def _check_unchanged(name: str, found: str | None, digest: str, owner: str) -> None:
    """Compare digests; the mark of an object that was not read says nothing."""
    if found is None or (is_sha256(found) and found != digest):
        state = "differs from" if found else "is missing from"
        raise InputError(
            f"{owner}: {name} {state} what clips_uri describes; give the same videos_uri to curate.split and {owner}, "
            "and run curate.split again where videos changed"
        )


def digest_of(rows: Rows, columns: Sequence[str]) -> str:
    """Of a video and of these columns of its clips."""
    parts = [rows[0]["source_digest"], *([row[name] for name in columns] for row in rows)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
