"""``telecine run NAME --runner … --dry-run``: what would be handed to a container engine or to Kubernetes."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from telecine import cli


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The variables of a machine that starts jobs; the file of its profile."""
    file = tmp_path / "cluster.toml"
    file.write_text('queue = "video-a"\n')
    monkeypatch.setenv("TELECINE_CLUSTER", str(file))
    monkeypatch.setenv("TELECINE_HOME", str(tmp_path))
    monkeypatch.setenv("TELECINE_STORE", "s3://bucket/store")
    monkeypatch.setenv("TELECINE_TRACKING_URI", "http://mlflow:5000")
    return file


def test_a_dry_run_prints_the_manifest(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "backlot.render", "--set", "num_films=3", "--run", "a-run", "--runner", "cluster", "--dry-run"]
    assert cli.main(words) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert (made["kind"], made["spec"]["suspend"]) == ("Job", True)
    assert made["metadata"]["labels"]["telecine.io/run"] == "a-run"
    assert made["metadata"]["name"] == f"backlot-render-{made['metadata']['labels']['telecine.io/key'][:10]}-1"
    [container] = made["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert json.loads(variables["TELECINE_INPUTS"])["num_films"] == 3
    assert variables["TELECINE_RUNNER"] == "process"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TELECINE_STORE", "file:///disk", "this machine's disk, got TELECINE_STORE=file:///disk; use an s3:// store"),
        (
            "TELECINE_TRACKING_URI",
            "",
            "the cluster runner: a component outside this Python cannot use MLflow's database",
        ),
        ("TELECINE_TRACKING_URI", "http://localhost:5000", "the cluster runner: a pod cannot reach"),
        ("TELECINE_CLUSTER", "", "TELECINE_CLUSTER must name the cluster's profile"),
    ],
)
def test_a_dry_run_checks_the_places(
    cluster: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "TELECINE_STORE":
        monkeypatch.setenv("TELECINE_TRACKING_URI", "http://127.0.0.1:5000")
    assert cli.main(["run", "backlot.render", "--runner", "cluster", "--dry-run"]) == 78
    assert message in capsys.readouterr().err


def test_a_dry_run_for_a_container_prints_its_command_line(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    told = {"host": {"cgroupControllers": ["memory"], "security": {"rootless": False}}}
    engine.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    engine.chmod(0o755)
    monkeypatch.setenv("TELECINE_CONTAINER_ENGINE", str(engine))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    assert cli.main(["run", "backlot.render", "--run", "a-run", "--runner", "container", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    words = shlex.split(printed)
    assert words[:2] == [str(engine), "run"]
    assert words[words.index("telecine") :][:3] == ["telecine", "run", "backlot.render"]
    assert "hush-hush" not in printed


def test_work_is_redone_by_force_only_where_it_is_called(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "backlot.render", "--runner", "cluster", "--dry-run", "--force"]) == 78
    assert "--force redoes work where it is called" in capsys.readouterr().err
