"""Runners, stores and trackers that work together, and those that are refused when settings are read."""

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
