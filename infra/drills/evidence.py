"""What a store really holds, read from its bytes: commits, whether they are whole, and the digests that they name."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from telecine.storage import Store
from telecine.work import commits
from telecine.work.digests import Digests

_OF_RUNS = re.compile(r"runs/[^/]+/(run\.json|mlflow-[0-9a-f]{8}\.json|(tasks|waits)/[^/]+\.json)")
_OF_WORKS = re.compile(r"(?P<work>work/[^/]+/[^/]+)/(beats/[^/]+\.json|logs/[^/]+\.log|mlflow-[0-9a-f]{8}\.json)")


def commits_in(store: Store) -> list[str]:
    """Paths of all standing commits: of works, items and checkpoints."""
    paths = [entry.path for entry in store.entries("work")]
    return [path for path in paths if path.endswith("/commit.json") and "/broken/" not in path]


def torn_commits(store: Store) -> list[str]:
    """What is wrong with which standing commit, bytes compared."""
    return [problem for path in commits_in(store) if (problem := problem_of(store, path)[0])]


def refused_checkpoints(store: Store, digests: Digests) -> list[str]:
    """Commits of checkpoints whose files are gone, as a reader sees it, which then moves them out of the way."""
    paths = [path for path in commits_in(store) if "/checkpoints/" in path]
    return [path for path in paths if commits.broken_files(store, store.read_json(path), digests)]


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


def astray(store: Store, lasting: Iterable[str]) -> list[str]:
    """What is too much in a store, or missing, after garbage of any age was collected.

    Everything is expected that ``lasting`` works are made of, the records of those works, those of runs, nothing else.
    """
    works: set[str] = set()
    expected: set[str] = set()
    queue = list(lasting)
    while queue:
        work = queue.pop()
        if work in works:
            continue
        works.add(work)
        replaced = [entry.path for entry in store.entries(f"{work}/broken")]
        for path, record in ((path, store.read_json(path)) for path in [f"{work}/commit.json", *replaced]):
            if record is None:
                continue
            expected |= {path, *record["files"]}
            for item in record["items"]:
                expected |= {f"{item['path']}/commit.json", *item["files"]}
            read = [store.path_of(value) or "" for value in record["inputs"].values() if isinstance(value, str)]
            queue += ["/".join(path.split("/")[:3]) for path in read if path.startswith("work/")]
    found = {entry.path for entry in (*store.entries(""), *store.staged(""))}
    told = {path for path in found if (match := _OF_WORKS.fullmatch(path)) and match["work"] in works}
    left = [path for path in found - expected - told if not _OF_RUNS.fullmatch(path)]
    missing = [f"{path}, which is needed, is missing" for path in sorted(expected - found)]
    return [*missing, *(f"{path} is left" for path in sorted(left))]
