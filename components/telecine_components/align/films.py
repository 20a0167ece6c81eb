"""Collected films: an index in the layout that the loader reads, and the pairs to choose between."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telecine.errors import InputError
from telecine_components.media import index

# The source of a film is the weights that made it; the maker is "model" or "reference".
SCHEMA = pa.schema([*index.SCHEMA, pa.field("seed", pa.int64()), pa.field("maker", pa.string())])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two films of one prompt, by sample id; which is A is drawn, so that nobody learns which model made it."""

    prompt: str
    a: str
    b: str


def pairs_of(rows: Sequence[Mapping[str, Any]], limit: int) -> list[Pair]:
    """At most ``limit`` pairs, spread over the prompts.

    Two checkpoints are compared on equal prompt and noise. Where there is only one, a prompt's films of one seed and
    the next are a pair.
    """
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["seed"], row["maker"])):
        by_prompt.setdefault(row["caption"], []).append(row)
    found = [
        _pair(films[place], films[place + 1], place)
        for films in by_prompt.values()
        for place in range(0, len(films) - 1, 2)
    ]
    order = sorted(found, key=lambda entry: entry[0])
    return [pair for _, pair in order[:limit]]


def _pair(one: Mapping[str, Any], other: Mapping[str, Any], place: int) -> tuple[int, Pair]:
    names = [str(one["sample_id"]), str(other["sample_id"])]
    if hashlib.sha256("|".join(names).encode()).digest()[0] % 2:
        names.reverse()
    return place, Pair(prompt=one["caption"], a=names[0], b=names[1])


def write(folder: Path, rows: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]) -> None:
    """Write ``index.parquet`` and ``pairs.json``; equal rows give equal bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), folder / "index.parquet")
    document = [dataclasses.asdict(pair) for pair in pairs]
    (folder / "pairs.json").write_text(json.dumps(document, indent=1, sort_keys=True))


def read_rows(folder: Path, *, owner: str) -> list[dict[str, Any]]:
    """Rows of the index; raises :class:`InputError` for a folder that align.collect did not write."""
    path = folder / "index.parquet"
    if not path.is_file() or set(SCHEMA.names) - set(pq.read_schema(path).names):
        raise InputError(f"{owner}: films_uri must be a folder that align.collect wrote, got {folder}")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def read_pairs(folder: Path) -> list[Pair]:
    """Pairs in the order in which they are asked about."""
    return [Pair(**entry) for entry in json.loads((folder / "pairs.json").read_text())]
