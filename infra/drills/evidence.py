"""What a store really holds, read from its bytes: commits, whether they are whole, and the digests that they name."""

import hashlib
from typing import Any

from telecine.storage import Store


def commits_in(store: Store) -> list[str]:
    """Paths of all standing commits: of works, items and checkpoints."""
    paths = [entry.path for entry in store.entries("work")]
    return [path for path in paths if path.endswith("/commit.json") and "/broken/" not in path]


def torn_commits(store: Store) -> list[str]:
    """What is wrong with which standing commit, bytes compared."""
    return [problem for path in commits_in(store) if (problem := problem_of(store, path)[0])]


def problem_of(store: Store, path: str) -> tuple[str | None, dict[str, Any] | None]:
    """Why a commit is torn, or None; its record, or None where it is gone."""
    try:
        record: dict[str, Any] | None = store.read_json(path)
    except ValueError:
        return f"{path} is no JSON", None
    if record is None:
        return None, None
    expected = dict(record["files"])
    for item in record.get("items", []):
        expected |= item["files"]
    for name, known in expected.items():
        try:
            data = store.read(name)
        except FileNotFoundError:
            return f"{path} names {name}, which is not there", record
        if hashlib.sha256(data).hexdigest() != known["sha256"]:
            return f"{path} names {name}, which holds other bytes", record
    return None, record


def digests_of(store: Store, document: dict[str, Any]) -> dict[str, str]:
    """Digest of each output artifact of a result document."""
    record = store.read_json(f"work/{document['component']}/{document['key']}/commit.json")
    return {name: value["digest"] for name, value in record["outputs"].items() if isinstance(value, dict)}
