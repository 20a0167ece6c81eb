"""A cluster that a test plays, and toy components whose pods are the real command line."""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from telecine import cli, cluster_profile, component, settings
from telecine.execution import Call, reuse
from telecine.launch import Launch
from telecine.runners.cluster import api, jobs
from telecine.runners.cluster.jobs import Submission
from telecine.runners.cluster.watch import Watch
from telecine.storage import Store
from telecine.work import commits, waits


def _load(name: str) -> ModuleType:
    """A module beside this file; test folders are no packages."""
    spec = util.spec_from_file_location(f"cluster_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[f"cluster_{name}"] = module
    spec.loader.exec_module(module)
    return module


emulator, toys = _load("emulator"), _load("toys")
SUSPENDED: dict[str, dict[str, Any]] = {
    "Job": {"active": 0, "conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]},
    "RayJob": {"jobStatus": "", "jobDeploymentStatus": "Suspended", "rayClusterName": ""},
    "TrainJob": {"conditions": [{"type": "Suspended", "status": "True", "reason": "Suspended"}]},
}
"""What each controller says of a job that Kueue suspended: Kubernetes 1.31 or newer, KubeRay 1.6, Trainer 2.3."""
RESUMED: dict[str, dict[str, Any]] = {
    "Job": {"active": 1, "conditions": [{"type": "Suspended", "status": "False", "reason": "JobResumed"}]},
    "RayJob": {"jobDeploymentStatus": "Initializing"},
    "TrainJob": {"conditions": [{"type": "Suspended", "status": "False", "reason": "Resumed"}]},
}
"""And of one that it resumed."""


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution of one toy for each kind of object."""
    site: Path = toys.write(tmp_path_factory.mktemp("site"))
    return site


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """The API server of every test here."""
    with emulator.running() as made:
        yield made


@pytest.fixture
def cluster(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty cluster, which KUBECONFIG names."""
    file = tmp_path / "kubeconfig"
    file.write_text(emulator.kubeconfig(server.url))
    monkeypatch.setenv("KUBECONFIG", str(file))
    yield server
    server.reset()


class Stage:
    """One toy's work, whoever waits for it, and the pods that a test lets do it."""

    def __init__(self, cluster: Any, here: settings.Settings, tracker: str, kind: str) -> None:
        self.cluster, self.here, self.tracker, self.kind = cluster, here, tracker, kind
        self.component = component.find(toys.KINDS[kind][0])
        self.profile = cluster_profile.build({"namespace": emulator.NAMESPACE, "queue": ""}, owner="test")
        self.store = Store(here.store_uri)

    def launch(self, run: str = "r", task: str = "", text: str = "a") -> Launch:
        """What the operator would have submitted."""
        inputs = self.component.parse({"text": text})
        task = task or self.component.name
        call = Call(component=self.component, inputs=inputs, run=run, task=task, settings=self.here)
        where, _ = reuse(call)
        return Launch(component=self.component, inputs=inputs, run=run, task=task, key=where.key, settings=self.here)

    def api(self) -> api.Api:
        """A client that does not wait long."""
        return api.connect(timeout_s=(1, 2))

    def submit(self, run: str = "r", **values: Any) -> Submission:
        """Submit; returns the claim, with the patience of a test."""
        made, self.found = jobs.submit(self.api(), self.launch(run), self.profile, self.store)
        return dataclasses.replace(made, **values)

    def watch(self, made: Submission) -> Watch:
        """A watcher with no memory, as a new triggerer has it."""
        return Watch(jobs.submission(json.loads(json.dumps(made.plain()))), connect=self.api)

    def pod(
        self,
        made: Submission,
        phase: str = "Running",
        *,
        name: str = "",
        node: str = "n1",
        labels: Mapping[str, str] = MappingProxyType({}),
        **status: Any,
    ) -> str:
        """A pod of the job as a controller makes it from the template; returns its name."""
        name = name or f"{made.ref.name}-{len(self.cluster.emulator.objects)}xyz"
        owner = [
            {"uid": self.job(made)["metadata"]["uid"], "kind": made.ref.kind, "name": made.ref.name, "controller": True}
        ]
        labels = made.manifest["metadata"]["labels"] | labels
        spec = {"nodeName": node, "containers": [{"name": "component"}]} if node else {"containers": []}
        self.cluster.add("Pod", name, labels=labels, owners=owner, spec=spec, status={"phase": phase, **status})
        return name

    def run_pod(self, made: Submission, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> int:
        """Do in this process what a pod of the job does: its argv with its variables; returns the exit code."""
        argv, variables = toys.container(self.job(made))
        with monkeypatch.context() as patch:
            for name, value in (variables | {"TELECINE_HOME": str(self.here.home)}).items():
                patch.setenv(name, value)
            patch.setenv("TOY_FAULT", fault)
            patch.setenv("TELECINE_TRACKING_URI", self.tracker)
            try:
                return cli.main(argv[1:])
            except ValueError:  # code that is wrong ends its process with a traceback, and 1
                return 1

    def start(self, made: Submission, node: str = "n1") -> None:
        """The pods run, and the controller says so."""
        for _ in range(2 if made.ref.kind == "TrainJob" else 1):
            self.pod(made, node=node)
        if made.ref.kind == "RayJob":
            self.cluster.patch(
                "RayJob", made.ref.name, status={"jobStatus": "RUNNING", "jobDeploymentStatus": "Running"}
            )

    def job(self, made: Submission) -> dict[str, Any]:
        """The object as it stands."""
        (found,) = [one for one in self.cluster.all(made.ref.kind) if one["metadata"]["name"] == made.ref.name]
        return found

    def fail_pod(self, made: Submission, code: int, *, node: str = "n1", said: str | None = "", **more: Any) -> str:
        """A pod whose component ended with ``code``; its node keeps no log where ``said`` is None."""
        terminated = {"exitCode": code, "reason": "Error", **more}
        statuses = [{"name": "component", "state": {"terminated": terminated}}]
        name = self.pod(made, "Failed", node=node, containerStatuses=statuses)
        if said is not None:
            self.cluster.emulator.logs[name] = said
        return name

    def suspend(self, made: Submission) -> None:
        """Kueue takes the quota back: the operator stops the pods, which save and end, and then says so."""
        terminated = {"name": "component", "state": {"terminated": {"exitCode": 75, "reason": "Error"}}}
        going = {"deletionTimestamp": emulator.now()}
        for pod in self.cluster.all("Pod"):
            status = {"phase": "Failed", "containerStatuses": [terminated]}
            self.cluster.patch("Pod", pod["metadata"]["name"], status=status, metadata=going)
        self.cluster.patch(made.ref.kind, made.ref.name, spec={"suspend": True}, status=SUSPENDED[made.ref.kind])

    def resume(self, made: Submission, node: str) -> None:
        """Kueue admits the job again, whose old pods are gone."""
        for pod in self.cluster.all("Pod"):
            self.cluster.remove("Pod", pod["metadata"]["name"])
        self.cluster.patch(made.ref.kind, made.ref.name, spec={"suspend": False}, status=RESUMED[made.ref.kind])
        self.start(made, node=node)

    def end_job(self, made: Submission, kind: str, reason: str = "", message: str = "") -> None:
        """Give the object its last condition, by the words of its own controller."""
        last = {"type": kind, "status": "True", "reason": reason, "message": message}
        status: dict[str, Any] = {"conditions": [last]}
        if made.ref.kind == "RayJob":
            ended = {"Complete": ("SUCCEEDED", "Complete"), "Failed": ("FAILED", "Failed")}[kind]
            status = {"jobStatus": ended[0], "jobDeploymentStatus": ended[1], "reason": reason, "message": message}
        self.cluster.patch(made.ref.kind, made.ref.name, status=status)

    def wait(self, run: str = "r") -> waits.Wait | None:
        """What is kept of the wait of the run's task."""
        return waits.read(self.store, run, self.component.name)

    def names(self) -> list[str]:
        """Names of the jobs that stand."""
        return [one["metadata"]["name"] for one in self.cluster.all(self.kind)]

    def commit(self, made: Submission) -> commits.Record | None:
        """The record of the work."""
        return commits.read(self.store, f"{made.prefix}/commit.json")


@pytest.fixture
def stage(
    cluster: Any, toy_site: Path, deployment: settings.Settings, s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Stage]]:
    """``stage(kind)``: a toy whose object is of that kind, in a deployment whose store pods can reach."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "toy-access-key")  # a name in a reason is no secret to be masked
    monkeypatch.syspath_prepend(str(toy_site))
    tracker = deployment.tracking_uri
    here = dataclasses.replace(deployment, store_uri=s3_store, tracking_uri="http://mlflow.invalid", runner="cluster")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the store's server tells every request
    handlers = list(logging.getLogger().handlers)
    hook = sys.excepthook
    yield lambda kind: Stage(cluster, here, tracker, kind)
    sys.excepthook = hook
    logging.getLogger().handlers = handlers
    for name in [name for name in sys.modules if name == "toys" or name.startswith("toys.")]:
        del sys.modules[name]
