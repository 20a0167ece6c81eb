"""A DAG's task on the cluster runner: a real Airflow defers it, and comes back when its job has left a commit."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.storage import Store
from telecine.work import runs, status

CLUSTER = Path(__file__).parents[1] / "platform" / "runners" / "cluster"
TIMEOUT_S = 120.0
DAG = '''"""One toy."""

from airflow.sdk import DAG

from telecine.operators import ComponentOperator, params_for
from toys.toy.write.spec import COMPONENT as WRITE

with DAG("write_toy", params=params_for(WRITE)):
    ComponentOperator(component=WRITE, retries=1, retry_delay=0.1)
'''


def _load(name: str) -> Any:
    spec = util.spec_from_file_location(f"cluster_{name}", CLUSTER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[f"cluster_{name}"] = module
    spec.loader.exec_module(module)
    return module


emulator, toys = _load("emulator"), _load("toys")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with emulator.running() as made:
        (tmp_path / "kubeconfig").write_text(emulator.kubeconfig(made.url))
        (tmp_path / "cluster.toml").write_text(f'namespace = "{emulator.NAMESPACE}"\n')
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("TELECINE_CLUSTER", str(tmp_path / "cluster.toml"))
        yield made


class Kubelet(threading.Thread):
    """Runs the pod of each job as a process, and tells the API how it ended; faults by number of the pod."""

    def __init__(self, cluster: Any, environment: dict[str, str], overrides: dict[str, str], faults: list[str]) -> None:
        super().__init__(daemon=True)
        self.cluster, self.environment, self.overrides, self.faults = cluster, environment, overrides, faults
        self.stopped = threading.Event()
        self.done: list[str] = []

    def run(self) -> None:
        """Until the test is over."""
        while not self.stopped.wait(0.1):
            for job in self.cluster.all("Job"):
                if job["metadata"]["name"] not in self.done:
                    self._run(job)

    def _run(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        self.done.append(name)
        pod, labels = f"{name}-abcde", job["metadata"]["labels"]
        self.cluster.add("Pod", pod, labels=labels, spec={"nodeName": "n1"}, status={"phase": "Running"})
        argv, variables = toys.container(job)
        command = [sys.executable, "-P", "-m", "telecine.cli", *argv[1:]]
        fault = {"TOY_FAULT": self.faults.pop(0)} if self.faults else {}
        ended = subprocess.run(
            command, env=self.environment | variables | self.overrides | fault, capture_output=True, text=True
        )
        self.cluster.emulator.logs[pod] = ended.stderr
        terminated = {"name": "component", "state": {"terminated": {"exitCode": ended.returncode}}}
        phase = "Failed" if ended.returncode else "Succeeded"
        self.cluster.patch("Pod", pod, status={"phase": phase, "containerStatuses": [terminated]})
        kind = "Failed" if ended.returncode else "Complete"
        self.cluster.patch("Job", name, status={"conditions": [{"type": kind, "status": "True"}]})


def test_a_task_is_deferred_to_its_job_and_comes_back_with_the_outputs(
    cluster: Any, tmp_path: Path, s3_store: str, deployment: settings.Settings, airflow: Any
) -> None:
    site = toys.write(tmp_path / "site")
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "write_toy.py").write_text(DAG)
    environment = os.environ | {"PYTHONPATH": str(site), "TELECINE_STORE": s3_store}
    overrides = {"TELECINE_HOME": str(deployment.home), "TELECINE_TRACKING_URI": deployment.tracking_uri}
    kubelet = Kubelet(cluster, environment, overrides, faults=["75"])
    kubelet.start()
    ended = airflow.test(
        "write_toy",
        "r",
        {},
        PYTHONPATH=str(site),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        TELECINE_RUNNER="cluster",
        TELECINE_STORE=s3_store,
        TELECINE_TRACKING_URI="http://mlflow.invalid",
        **{
            name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "KUBECONFIG", "TELECINE_CLUSTER"))
        },
    )
    kubelet.stopped.set()
    kubelet.join(TIMEOUT_S)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
    (pointer,) = runs.pointers(Store(s3_store), "r")
    assert (pointer.decision, kubelet.done) == ("ran", [f"toy-write-{pointer.key[:10]}-{n}" for n in (1, 2)])
    assert Store(s3_store).read(str(Store(s3_store).path_of(pointer.outputs["text_uri"]))) == b"a"
    assert "the toy was told to end with 75" in ended.stdout
    assert "event=submitted" in ended.stdout
    assert "event=job_ended" in ended.stdout
    assert status.of(Store(s3_store), "r")["tasks"][0]["state"] == "ran"
