"""``telecine doctor``: what a run needs on this machine, whether it is there, and how to mend it."""

import dataclasses
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from telecine import cluster_profile, component, engines, provenance, registry, settings
from telecine.cluster_profile import Profile
from telecine.errors import TelecineError
from telecine.monitor import nvml
from telecine.redaction import mask
from telecine.settings import Settings
from telecine.storage import CLOCK, PATIENCE_S, Store

MIN_FREE_GIB = 5.0
PORTS = {"TELECINE_AIRFLOW_PORT": 8080, "TELECINE_MLFLOW_PORT": 5000}
OPTIONAL_TOOLS = {
    ("podman",): "the container runner needs it",
    ("kubectl",): "the cluster runner needs it",
    ("helm",): "the platform chart needs it",
    ("chromium", "chromium-browser", "google-chrome"): "the tests in a browser need it",
    ("promtool",): "the test of the exporter needs it",
}
S3_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding. ``state`` is ``ok``, ``note`` (works without) or ``bad`` (a run will fail)."""

    what: str
    state: str
    found: str
    cure: str = ""


def examine(here: Settings) -> list[Check]:
    """Run every check."""
    checks: list[Callable[[Settings], Iterator[Check]]] = [
        _python,
        _disk,
        _path,
        _components,
        _s3,
        _store,
        _tracker,
        _ports,
        _devices,
        _containers,
        _cluster,
        _tools,
    ]
    return [finding for check in checks for finding in check(here)]


def render(checks: list[Check]) -> str:
    """One line a check, and the cure below what needs one."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:5} {check.what:12} {check.found}")
        if check.cure:
            lines.append(f"{'':18} {check.cure}")
    num_bad = sum(check.state == "bad" for check in checks)
    lines.append("a run will work here" if not num_bad else f"{num_bad} to mend before a run can work here")
    return "\n".join(lines)


def _python(_: Settings) -> Iterator[Check]:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] == (3, 11)
    yield Check("python", "ok" if good else "bad", found, "" if good else "install Python 3.11 and run make again")


def _disk(here: Settings) -> Iterator[Check]:
    folder = next(path for path in (here.home, *here.home.parents) if path.exists())
    free_gib = shutil.disk_usage(folder).free / 2**30
    found = f"{free_gib:.0f} GiB free at {folder}"
    if free_gib < MIN_FREE_GIB:
        yield Check("disk", "bad", found, f"free {MIN_FREE_GIB:g} GiB, or set TELECINE_HOME to a larger disk")
    else:
        yield Check("disk", "ok", found)


def _path(_: Settings) -> Iterator[Check]:
    folder = Path(sys.executable).parent
    found = shutil.which("airflow")
    if found is None:
        cure = f"make demo and make up do this by themselves: put {folder} first on PATH"
        yield Check("airflow", "note", "not on PATH", cure)
    elif Path(found).parent != folder:
        cure = f"put {folder} before {Path(found).parent} on PATH"
        yield Check("airflow", "bad", f"{found} belongs to another environment", cure)
    else:
        yield Check("airflow", "ok", f"{version('apache-airflow')} at {found}")


def _components(_: Settings) -> Iterator[Check]:
    names = component.names()
    state = "ok" if names else "bad"
    yield Check("components", state, f"{len(names)} installed", "" if names else "install this package: make demo does")


def _store(here: Settings) -> Iterator[Check]:
    """Write, create, race with itself and remove, as every commit does."""
    try:
        store = Store(here.store_uri, patience_s=PATIENCE_S)
        path = f"{CLOCK}/{secrets.token_hex(8)}"
        first, second = store.create(path, b"probe"), store.create(path, b"probe")
        store.delete(path)
    except (TelecineError, OSError) as error:
        yield Check("store", "bad", str(error), "check TELECINE_STORE, its endpoint, credentials and permissions")
        return
    if first and not second:
        yield Check("store", "ok", f"{here.store_uri} creates conditionally")
    else:
        cure = "use a store that honours If-None-Match: two attempts could both commit here"
        yield Check("store", "bad", f"{here.store_uri} lets two racers create one object", cure)


def _s3(here: Settings) -> Iterator[Check]:
    """What an s3:// store takes from the environment: whether it is there, never what it is."""
    if here.store_is_local:
        return
    endpoint = mask(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon's")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "the default"
    yield Check("s3 endpoint", "ok", f"{endpoint}, region {region}")
    missing = [name for name in S3_CREDENTIALS if not os.environ.get(name)]
    cure = f"set {' and '.join(missing)}" if missing else ""
    yield Check("s3 keys", "bad" if missing else "ok", "not set" if missing else "both are set", cure)


def _tracker(here: Settings) -> Iterator[Check]:
    try:
        found = registry.check(here)
    except TelecineError as error:
        yield Check("tracker", "bad", str(error), "start the server, or unset TELECINE_TRACKING_URI")
    else:
        yield Check("tracker", "ok", found)


def _ports(_: Settings) -> Iterator[Check]:
    for variable, default in PORTS.items():
        port = settings.port(os.environ, variable, default)
        with socket.socket() as probe:
            free = probe.connect_ex(("127.0.0.1", port)) != 0
        cure = "" if free else f"only make up needs it: set {variable} to another port, or make down"
        yield Check(f"port {port}", "ok" if free else "note", "free" if free else "in use", cure)


def _devices(_: Settings) -> Iterator[Check]:
    hardware = provenance.hardware()
    yield Check("processor", "ok", f"{hardware['cpu_count']} x {hardware['cpu']}, {hardware['memory_gib']} GiB")
    sample = nvml.Reader().sample()
    if sample.state == nvml.READY:
        yield Check("gpu", "ok", f"{', '.join(gpu.name for gpu in sample.gpus)}; driver {sample.driver}")
    else:
        yield Check("gpu", "note", f"{sample.state}: {nvml.STATES[sample.state]}")


def _containers(here: Settings) -> Iterator[Check]:
    """The engine and every image that a component names, where tasks run in containers."""
    if here.runner != "container":
        return
    try:
        engine = engines.find()
        limits = ", ".join(sorted(engine.limits)) or "nothing"
        yield Check("container", "ok", f"{engine.command}, which can limit {limits}")
    except TelecineError as error:
        yield Check("container", "bad", str(error), "install podman, or use TELECINE_RUNNER=process")
        return
    for image_set in sorted({component.find(name).image for name in component.names()}):
        try:
            yield Check(f"image {image_set}", "ok", engine.require(image_set))
        except TelecineError as error:
            yield Check(f"image {image_set}", "bad", str(error), f"make images SET={image_set}")


def _cluster(here: Settings) -> Iterator[Check]:
    """The profile, the cluster's API and what is installed there, where tasks run as its jobs."""
    if here.runner != "cluster":
        return
    from telecine.runners.cluster import api

    try:
        profile = cluster_profile.load()
        yield Check("profile", "ok", f"namespace {profile.namespace}, {_queue(profile)}")
    except TelecineError as error:
        cure = f"copy infra/cluster/cluster.toml, adapt it, and name it in {cluster_profile.VARIABLE}"
        yield Check("profile", "bad", str(error), cure)
        return
    try:
        cluster = api.connect()
        cluster.items(f"/api/v1/namespaces/{profile.namespace}/pods", limit="1")
        yield Check("cluster", "ok", f"{cluster.host} by {cluster.place}")
    except TelecineError as error:
        cure = "check KUBECONFIG, TELECINE_KUBE_CONTEXT, and that this machine reaches the cluster"
        yield Check("cluster", "bad", str(error), cure)
        return
    yield _kueue(cluster, profile)
    yield _operator(cluster, profile, "kuberay", "RayJob")
    yield _operator(cluster, profile, "trainer", "TrainJob")


def _queue(profile: Profile) -> str:
    return f"queue {profile.queue}" if profile.queue else "no queue"


def _kueue(cluster: Any, profile: Profile) -> Check:
    """Whether what is queued would ever start: without its queue it stays suspended."""
    from telecine.runners.cluster.look import KUEUE

    lacking = "bad" if profile.queue else "note"
    try:
        listed = cluster.items(f"{KUEUE}/namespaces/{profile.namespace}/localqueues")
    except TelecineError as error:
        cure = "install Kueue and infra/cluster/queues.yaml, or let the profile name no queue"
        return Check("kueue", lacking, str(error), cure if profile.queue else "")
    queues = sorted(each["metadata"]["name"] for each in listed)
    found = f"queues of {profile.namespace}: {', '.join(queues) or 'none'}"
    if profile.queue in ("", *queues):
        return Check("kueue", "ok", found)
    cure = f"make the LocalQueue {profile.queue} as infra/cluster/queues.yaml does, or correct queue in the profile"
    return Check("kueue", "bad", found, cure)


def _operator(cluster: Any, profile: Profile, what: str, kind: str) -> Check:
    """Whether the cluster takes a kind that only some components need."""
    from telecine.kube import PLURALS, VERSIONS

    try:
        cluster.items(f"/apis/{VERSIONS[kind]}/namespaces/{profile.namespace}/{PLURALS[kind]}", limit="1")
    except TelecineError as error:
        return Check(what, "note", str(error))
    return Check(what, "ok", f"takes a {kind}")


def _tools(_: Settings) -> Iterator[Check]:
    for names, purpose in OPTIONAL_TOOLS.items():
        found = next(filter(None, map(shutil.which, names)), None)
        yield Check(names[0], "ok" if found else "note", found or f"not installed: only {purpose}")
    try:
        yield Check("deepspeed", "ok", version("deepspeed"))
    except PackageNotFoundError:
        yield Check("deepspeed", "bad", "not installed", "pip install 'telecine[train]'")
