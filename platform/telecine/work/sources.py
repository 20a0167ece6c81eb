"""The sources of an output: which clips of which files it was made of, under which licence and consent.

A component that turns footage into data declares them once, by ``ctx.declare_sources``; whatever is made from that
data has them through its inputs. They lie beside the output as JSON lines, sorted, equal bytes for equal rows.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from telecine.storage import Store
from telecine.work import commits

FILE = "sources.jsonl"
FIELDS = ("clip_id", "source", "source_digest", "licence", "consent", "split")
"""``split`` is ``train`` for what a model may learn from, ``val`` for what it is only measured on."""

Row = dict[str, str]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one line a clip; rows that are equal count once.

    Raises:
        ValueError: a row lacks a field or has another one.
    """
    lines = set()
    for row in rows:
        if set(row) != set(FIELDS):
            raise ValueError(f"a source must have the fields {', '.join(FIELDS)}, got {', '.join(sorted(row))}")
        texts = {name: str(value or "") for name, value in row.items()}
        lines.add(json.dumps(texts, sort_keys=True, ensure_ascii=False))
    path.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")


def declared(record: commits.Record) -> str | None:
    """Where a commit's sources lie in the store, or None where its component declared none."""
    prefix = f"work/{record['component']}/{record['key']}/attempts/{record['attempt']}"
    path = f"{prefix}/{FILE}"
    return path if path in record["files"] else None


def read(store: Store, record: commits.Record) -> list[Row]:
    """The rows that a commit's component declared; none where it declared none."""
    path = declared(record)
    return [] if path is None else [json.loads(line) for line in store.read(path).decode().splitlines()]
