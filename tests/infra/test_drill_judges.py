"""What the drills judge by: that a leak, an orphan and work done twice would be seen."""

import base64
from pathlib import Path
from urllib.parse import quote

import pytest

from telecine.storage import Store

DRILLS = Path(__file__).parents[2] / "infra" / "drills"
SECRET = "drill/secret+key?0123"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def drills(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drills' modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(DRILLS))


@pytest.mark.parametrize(
    "written",
    [
        f"key={SECRET}.",
        quote(SECRET, safe=""),
        *(base64.b64encode(f"{user}:{SECRET}".encode()).decode() for user in ("a", "ab", "abc")),
        base64.urlsafe_b64encode(f"ab:{SECRET}, and more".encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form(written: str, tmp_path: Path) -> None:
    import leaks

    (tmp_path / "log.txt").write_text(f"before {written} after")
    (tmp_path / "meant.ini").write_text(SECRET)
    (tmp_path / "other.txt").write_text(f"{base64.b64encode(SECRET[::-1].encode()).decode()} {SECRET[:-2]}")
    found = leaks.leaks("home", tmp_path, {"secret key": SECRET}, meant=["meant.ini"])
    assert found == [f"the secret key is in the home: {tmp_path / 'log.txt'}"]


def test_what_garbage_collection_leaves_or_takes_too_much_is_named(tmp_path: Path) -> None:
    import evidence

    store = Store(f"file://{tmp_path}")
    store.write_json("work/a.b/key/commit.json", _record("work/a.b/key/attempts/one/file", {}))
    store.write_json("work/c.d/key/commit.json", _record("", {"uri": store.uri_of("work/a.b/key/attempts/one/file")}))
    kept = ("work/a.b/key/attempts/one/file", "work/a.b/key/beats/one.json", "work/c.d/key/logs/one.log")
    for path in (*kept, "runs/r/run.json", "runs/r/tasks/a.b.json"):
        store.write(path, b"{}")
    assert evidence.astray(store, ["work/c.d/key"]) == []
    left = ("clock/0123", "runs/r/run.json#1", "work/a.b/key/attempts/two/file", "work/e.f/key/beats/one.json")
    for path in left:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    assert evidence.astray(store, ["work/c.d/key"]) == [f"{path} is left" for path in left]
    store.delete(kept[0])
    assert evidence.astray(store, ["work/c.d/key"])[0] == f"{kept[0]}, which is needed, is missing"


def test_a_step_that_a_checkpoint_held_is_doubled() -> None:
    import crash_points

    seen = {"items": ["item 0"], "steps": [2, 3]}
    assert crash_points._doubled({"made": ["item 1"], "steps": [4, 5]}, seen) == []
    assert crash_points._doubled({"made": ["item 0"], "steps": [3, 4]}, seen) == ["item 0", "step 3"]


def _record(file: str, inputs: dict[str, str]) -> dict[str, object]:
    return {"files": {file: {}} if file else {}, "items": [], "inputs": inputs}
