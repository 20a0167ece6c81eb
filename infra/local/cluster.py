"""``make cluster``: a Kubernetes cluster on this machine with kind, the operators Telecine uses, and a smoke run in it.

Needs kind, kubectl, helm and docker or podman, and the internet: it pulls kind's node image, three charts, and images
of MinIO and MLflow. Everything is made by its name, so that the same command goes on where it stopped.
``make cluster-down`` removes the cluster.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
from typing import Any

from deployment import REPOSITORY, guarded
from telecine import engines, images
from telecine.engines import Engine
from telecine.errors import InputError, TelecineError

NAME = "telecine"
NAMESPACE = "telecine"
SETS = ("airflow", "curate", "train")
CHARTS = {
    "kueue": ("oci://registry.k8s.io/kueue/charts/kueue", "0.19.2", "kueue-system"),
    "kuberay-operator": ("kuberay-operator", "1.7.0", "ray-system"),
    "kubeflow-trainer": ("oci://ghcr.io/kubeflow/charts/kubeflow-trainer", "2.3.0", "kubeflow-system"),
}
KUBERAY_CHARTS = "https://ray-project.github.io/kuberay-helm/"
CLUSTER = REPOSITORY / "infra" / "cluster"
SMOKE_TIMEOUT_S = 900


def up() -> int:
    """Make the cluster, install the operators, load the images, and run one component on each kind of object."""
    _need("kind", "kubectl", "helm")
    engine = engines.find()
    names = [engine.require(each) for each in SETS]
    if NAME not in _say("kind", "get", "clusters").split():
        _do("kind", "create", "cluster", "--name", NAME, "--wait", "120s")
    for release, (chart, version, namespace) in CHARTS.items():
        _install(release, chart, version, namespace)
    for name in names:
        _load(engine, name)
    for manifest in ("namespace.yaml", "queues.yaml", "training-runtimes.yaml"):
        _apply((CLUSTER / manifest).read_text())
    for secret in _new_secrets():
        _create(secret)
    _apply(json.dumps(_profile()))
    _apply((REPOSITORY / "infra" / "local" / "cluster.yaml").read_text())
    _kubectl("rollout", "status", "deployment/minio", "deployment/mlflow", "--timeout=300s")
    return smoke()


def smoke() -> int:
    """Run one component from inside the cluster, with the rights that Airflow has there; print what it said."""
    _need("kubectl")
    _kubectl("delete", "job", "telecine-smoke", "--ignore-not-found", "--wait")
    smoke_run = (REPOSITORY / "infra" / "local" / "smoke.yaml").read_text()
    _apply(smoke_run.replace("AIRFLOW_IMAGE", images.name("airflow")))
    done = subprocess.run(
        [*_KUBECTL, "wait", "job/telecine-smoke", "--for=condition=complete", f"--timeout={SMOKE_TIMEOUT_S}s"]
    )
    _kubectl("logs", "job/telecine-smoke")
    if done.returncode != 0:
        _kubectl("get", "jobs,rayjobs,trainjobs,workloads,pods")
        raise TelecineError("the smoke run did not end well; its log and the cluster's objects are above")
    print("the smoke run ended well; go on with: pytest -m cluster")
    return 0


def down() -> int:
    """Remove the cluster and all that is in it."""
    _need("kind")
    _do("kind", "delete", "cluster", "--name", NAME)
    return 0


_KUBECTL = ("kubectl", "--context", f"kind-{NAME}", "--namespace", NAMESPACE)


def _install(release: str, chart: str, version: str, namespace: str) -> None:
    repository = [] if chart.startswith("oci://") else ["--repo", KUBERAY_CHARTS]
    place = ["--kube-context", f"kind-{NAME}", "--namespace", namespace, "--create-namespace", "--wait"]
    _do("helm", "upgrade", "--install", release, chart, "--version", version, *repository, *place)


def _need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            raise InputError(f"make cluster needs {tool} on the PATH; see its project's page for how to install it")


def _load(engine: Engine, image: str) -> None:
    """Hand an image of ours, which the engine holds, to the cluster's node; it is in no registry."""
    archive = REPOSITORY / "dist" / "image.tar"
    archive.parent.mkdir(exist_ok=True)
    try:
        _do(engine.command, "save", "--output", str(archive), image)
        _do("kind", "load", "image-archive", str(archive), "--name", NAME)
    finally:
        archive.unlink(missing_ok=True)


def _new_secrets() -> list[dict[str, Any]]:
    """Credentials of the store and the tracker in the cluster, drawn anew."""
    password = secrets.token_urlsafe(16)
    credentials = {
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24),
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": password,
    }
    lines = [
        "[mlflow]",
        "default_permission = READ",
        "admin_username = admin",
        f"admin_password = {password}",
        "database_uri = sqlite:////data/auth.db",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    ]
    server = {"basic_auth.ini": "\n".join(lines) + "\n", "flask": secrets.token_urlsafe(32)}
    return [_secret("telecine", credentials), _secret("mlflow", server)]


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def _profile() -> dict[str, Any]:
    """The example profile, as pods read it."""
    metadata = {"name": "telecine-cluster", "namespace": NAMESPACE}
    data = {"cluster.toml": (CLUSTER / "cluster.toml").read_text()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _create(manifest: dict[str, Any]) -> None:
    """Make what is not there; what an earlier call made stands."""
    there = subprocess.run([*_KUBECTL, "get", manifest["kind"], manifest["metadata"]["name"]], capture_output=True)
    if there.returncode != 0:
        _apply(json.dumps(manifest))


def _apply(manifest: str) -> None:
    print(_say(*_KUBECTL, "apply", "--filename", "-", text=manifest), end="", flush=True)


def _kubectl(*arguments: str) -> None:
    _do(*_KUBECTL, *arguments)


def _do(*command: str) -> None:
    """Run a command in the person's sight; one line where it fails."""
    print("+", " ".join(command), flush=True)
    if subprocess.run(command, env=os.environ).returncode != 0:
        raise TelecineError(f"{' '.join(command)} failed; its own words are above")


def _say(*command: str, text: str = "") -> str:
    """What a command says, with ``text`` on its stdin; one line where it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise TelecineError(f"{' '.join(command)} ended with {done.returncode}: {told}")
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("up", "smoke", "down"))
    sys.exit(guarded({"up": up, "smoke": smoke, "down": down}[parser.parse_args().command]))
