"""What only a real cluster can show: ``pytest -m cluster``, against the current kubeconfig context.

It needs what ``make cluster`` makes: the operators, the namespace and queues of ``infra/cluster``, the images, and a
store and a tracker that its pods reach, named by the usual variables.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine import cluster_profile, component, kube, settings
from telecine.component import Component, Resources
from telecine.config import Artifact, param
from telecine.launch import Launch

pytestmark = pytest.mark.cluster
PROFILE = Path(__file__).parents[2] / "infra" / "cluster" / "cluster.toml"
PLACES = settings.Settings(
    home=Path("/nowhere"), store_uri="s3://telecine/store", tracking_uri="http://mlflow:5000", runner="cluster"
)
KINDS = {"Job": {}, "RayJob": {"ray_workers": 2}, "TrainJob": {"nodes": 2}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    """Inputs and outputs of a toy."""

    text_uri: Artifact = param(Artifact(""), help="Nothing.")


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_takes_every_kind_as_it_is(kind: str) -> None:
    toy = Component(
        name=f"toy.{kind.lower()}",
        inputs=Nothing,
        outputs=Nothing,
        entry="a:b",
        image="curate",
        resources=Resources(**KINDS[kind]),
    )
    launch = Launch(component=toy, inputs=Nothing(), run="acceptance", task="toy", key="0" * 32, settings=PLACES)
    manifest = kube.manifest(launch, cluster_profile.load({cluster_profile.VARIABLE: str(PROFILE)}), number=1)
    assert manifest["kind"] == kind
    _dry_run(manifest)


def test_a_component_runs_as_a_job_and_leaves_its_commit(tmp_path: Path) -> None:
    if not os.environ.get("TELECINE_CLUSTER"):
        pytest.fail("set TELECINE_CLUSTER, TELECINE_STORE, TELECINE_TRACKING_URI and their credentials")
    result = tmp_path / "result.json"
    assert component.find("backlot.render").image == "curate"
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", "backlot.render", "--runner", "cluster"]
    values = {"num_films": 2, "num_frames": 4, "seed": int.from_bytes(os.urandom(3))}
    done = subprocess.run(
        [*command, "--inputs", json.dumps(values), "--result", str(result)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "event=submitted object='Job backlot-render-" in done.stderr
    assert json.loads(result.read_text())["outputs"]["num_films"] == 2


def _dry_run(manifest: dict[str, Any]) -> None:
    """Let the server admit the object, with every webhook, and keep nothing."""
    ref = kube.ref(manifest)
    command = ["kubectl", "create", "--dry-run=server", "--namespace", ref.namespace, "--filename", "-"]
    context = os.environ.get("TELECINE_KUBE_CONTEXT")
    where = ["--context", context] if context else []
    done = subprocess.run([*command, *where], input=json.dumps(manifest), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
