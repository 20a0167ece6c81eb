"""Every drill, short: the faults are really there, and nothing is lost, doubled or torn."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
DRILLS = REPOSITORY / "infra" / "drills" / "drills.py"
AT_LEAST = {
    "commit_crash_points": 80,
    "credentials": 3,
    "curation_kills": 1,  # a step of ten small files may end before its kill comes
    "full_disk": 1,
    "process_kills": 2,
    "racing_pairs": 2,
    "s3_faults": 10,
    "store_outage": 1,
    "training_kills": 2,
    "two_demos": 1,
    "zombie_attempt": 1,
}
FIELDS = ["commit", "doubled", "hardware", "id", "injected", "lost", "recovered", "seconds", "torn", "what"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All drills in one call, which makes what they share once; they need strace, and leave to mount a file system."""
    for tool in ("strace", "unshare"):
        if shutil.which(tool) is None:
            if os.environ.get("CI"):
                pytest.fail(f"CI needs {tool}")
            pytest.skip(f"there is no {tool}")
    path = tmp_path_factory.mktemp("drills") / "drills.json"
    other = {"id": "by_hand", "injected": 1}
    path.write_text(json.dumps([other]))
    command = [sys.executable, str(DRILLS), "--size", "short", "--record", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    print(done.stdout, done.stderr)
    found = {row["id"]: row for row in json.loads(path.read_text())}
    assert found.pop("by_hand") == other, "rows of other drills are kept"
    assert list(found) == sorted(AT_LEAST)
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("name", sorted(AT_LEAST))
def test_nothing_is_lost_doubled_or_torn(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    assert sorted(row) == FIELDS
    assert row["injected"] >= AT_LEAST[name]
    assert (row["lost"], row["doubled"], row["torn"]) == (0, 0, 0)
    assert row["recovered"] == row["injected"]


def test_the_record_holds_every_drill_in_full() -> None:
    record = {row["id"]: row for row in json.loads((REPOSITORY / "docs" / "drills.json").read_text())}
    assert set(record) >= {"container_flywheel", *AT_LEAST}
    assert record["commit_crash_points"]["injected"] >= 2000
    assert record["container_flywheel"]["injected"] >= 3
    assert record["curation_kills"]["injected"] >= 20
    assert record["racing_pairs"]["injected"] >= 40
    assert record["process_kills"]["injected"] >= 20
    assert record["training_kills"]["injected"] >= 22
    assert record["two_demos"]["injected"] >= 4
    assert [name for name, row in record.items() if row["lost"] or row["doubled"] or row["torn"]] == []
    assert [name for name, row in record.items() if row["what"].endswith("(short)")] == []
