"""Runners, stores and trackers that work together, and those that are refused when settings are read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telecine import settings
from telecine.errors import InputError


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TELECINE_RUNNER": "container"}, "cannot use MLflow's database .*; set TELECINE_TRACKING_URI"),
        ({"TELECINE_RUNNER": "cluster"}, "cannot use MLflow's database"),
        (
            {"TELECINE_RUNNER": "cluster", "TELECINE_TRACKING_URI": "http://127.0.0.1:5000"},
            "no pod reaches this machine's disk",
        ),
        ({"TELECINE_TRACKING_URI": "https://mlflow.example"}, "use an s3:// store"),
        ({"TELECINE_RUNNER": "boat"}, "must be one of process, container, cluster"),
    ],
)
def test_places_that_cannot_work_together_are_refused(variables: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        settings.from_environment({"TELECINE_HOME": str(tmp_path), **variables})


@pytest.mark.parametrize("runner", ["process", "container"])
def test_a_server_on_this_machine_and_a_local_store_work_together(runner: str, tmp_path: Path) -> None:
    places = {"TELECINE_TRACKING_URI": "http://localhost:5000", "TELECINE_RUNNER": runner}
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path), **places})
    assert (here.store_is_local, here.runner) == (True, runner)


def test_two_machines_of_one_name_have_two_trackers_and_one_keeps_its_own(tmp_path: Path) -> None:
    identity = Path("/etc/machine-id")
    if shutil.which("unshare") is None or not identity.exists():
        if os.environ.get("CI"):
            pytest.fail("CI needs unshare and a machine with an identity")
        pytest.skip("there is no unshare, or this machine has no identity")
    (tmp_path / "other").write_text("0" * 32)
    program = "from telecine import settings; print(settings.from_environment().tracker_id)"
    elsewhere = f'mount --bind "$0" {identity} && exec "$@"'
    other = ["unshare", "--map-root-user", "--mount", "sh", "-c", elsewhere, str(tmp_path / "other")]
    told = [
        subprocess.run(
            [*machine, sys.executable, "-c", program],
            env=os.environ | {"TELECINE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for machine in ([], other, [])
    ]
    assert told[0] == told[2] != told[1]
