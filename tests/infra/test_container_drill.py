"""The short drill of containers: two components in their image, one killed, leave the process runner's commits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRILLS = Path(__file__).parents[2] / "infra" / "drills" / "drills.py"


def test_components_in_containers_leave_the_commits_of_processes(tmp_path: Path) -> None:
    if shutil.which("podman") is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs podman")
        pytest.skip("there is no podman")
    record = tmp_path / "drills.json"
    command = [sys.executable, str(DRILLS), "--row", "container_flywheel", "--size", "short", "--record", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    (row,) = json.loads(record.read_text())
    assert (row["injected"], row["lost"], row["doubled"], row["torn"], row["recovered"]) == (1, 0, 0, 0, 1)
