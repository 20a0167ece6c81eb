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

from telecine import component, provenance, tracking
from telecine.errors import TelecineError
from telecine.settings import Settings
from telecine.storage import Store

MIN_FREE_GIB = 5.0
PORTS = {"TELECINE_AIRFLOW_PORT": 8080, "TELECINE_MLFLOW_PORT": 5000}
OPTIONAL_TOOLS = {"podman": "the container runner", "kubectl": "the cluster runner", "helm": "the platform chart"}


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
        _store,
        _tracker,
        _ports,
        _devices,
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
        store = Store(here.store_uri)
        path = f"doctor/{secrets.token_hex(8)}"
        first, second = store.create(path, b"probe"), store.create(path, b"probe")
        store.delete_folder("doctor")
    except (TelecineError, OSError) as error:
        yield Check("store", "bad", str(error), "check TELECINE_STORE, its endpoint, credentials and permissions")
        return
    if first and not second:
        yield Check("store", "ok", f"{here.store_uri} creates conditionally")
    else:
        cure = "use a store that honours If-None-Match: two attempts could both commit here"
        yield Check("store", "bad", f"{here.store_uri} lets two racers create one object", cure)


def _tracker(here: Settings) -> Iterator[Check]:
    try:
        tracking.connect(here)
    except TelecineError as error:
        yield Check("tracker", "bad", str(error), "start the server, or unset TELECINE_TRACKING_URI")
    except ModuleNotFoundError as error:
        yield Check("tracker", "bad", f"{error.name} is not installed", "pip install 'telecine[airflow]'")
    else:
        yield Check("tracker", "ok", tracking.shown(here.tracking_uri))


def _ports(_: Settings) -> Iterator[Check]:
    for variable, default in PORTS.items():
        port = int(os.environ.get(variable, default))
        with socket.socket() as probe:
            free = probe.connect_ex(("127.0.0.1", port)) != 0
        cure = "" if free else f"only make up needs it: set {variable} to another port, or make down"
        yield Check(f"port {port}", "ok" if free else "note", "free" if free else "in use", cure)


def _devices(_: Settings) -> Iterator[Check]:
    hardware = provenance.hardware()
    yield Check("processor", "ok", f"{hardware['cpu_count']} x {hardware['cpu']}, {hardware['memory_gib']} GiB")
    gpus = provenance.gpu_names()
    yield Check("gpu", "ok" if gpus else "note", ", ".join(gpus) or "none: everything runs on the CPU")


def _tools(_: Settings) -> Iterator[Check]:
    for name, purpose in OPTIONAL_TOOLS.items():
        found = shutil.which(name)
        yield Check(name, "ok" if found else "note", found or f"not installed: only {purpose} needs it")
    try:
        yield Check("deepspeed", "ok", version("deepspeed"))
    except PackageNotFoundError:
        yield Check("deepspeed", "bad", "not installed", "pip install 'telecine[train]'")
