"""Where this process keeps things: read once from the environment, checked early, passed on as a value.

TELECINE_HOME           folder of everything local   (default: the nearest .telecine above, else ~/.telecine)
TELECINE_STORE          file:// or s3:// URI         (default: <home>/store)
TELECINE_TRACKING_URI   MLflow's                     (default: SQLite under <home>/mlflow)
TELECINE_RUNNER         process | container | cluster
"""

import dataclasses
import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from telecine.errors import InputError

RUNNERS = ("process", "container", "cluster")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """One deployment's places, as absolute paths and URIs."""

    home: Path
    store_uri: str
    tracking_uri: str
    runner: str = "process"

    @property
    def store_is_local(self) -> bool:
        """Whether only this machine can reach the store."""
        return self.store_uri.startswith("file://")

    @property
    def tracker_id(self) -> str:
        """Eight hexadecimal digits that tell this MLflow from another one over the same store."""
        place = f"{_machine()} {self.tracking_uri}" if self.tracker_is_local else self.tracking_uri
        return hashlib.sha256(place.encode()).hexdigest()[:8]

    @property
    def tracker_is_local(self) -> bool:
        """Whether MLflow is a database file on this machine rather than a server."""
        return urlsplit(self.tracking_uri).scheme == "sqlite"

    @property
    def tracker_is_loopback(self) -> bool:
        """Whether MLflow is a server on this machine, which therefore sees the same disk."""
        return urlsplit(self.tracking_uri).hostname in LOOPBACK

    def environment(self) -> dict[str, str]:
        """The variables that make a child process read these very settings."""
        return {
            "TELECINE_HOME": str(self.home),
            "TELECINE_STORE": self.store_uri,
            "TELECINE_TRACKING_URI": self.tracking_uri,
            "TELECINE_RUNNER": self.runner,
        }


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings above; raises :class:`InputError` for a combination that cannot work."""
    home = Path(environment.get("TELECINE_HOME") or _nearest_home(Path.cwd())).expanduser().absolute()
    settings = Settings(
        home=home,
        store_uri=_store_uri(environment.get("TELECINE_STORE") or f"file://{home}/store"),
        tracking_uri=environment.get("TELECINE_TRACKING_URI") or f"sqlite:///{home}/mlflow/mlflow.db",
        runner=environment.get("TELECINE_RUNNER") or "process",
    )
    _check(settings)
    return settings


def _machine() -> str:
    """Name and identity of this machine, the same after it was started anew; names alone are given twice."""
    identity = Path("/etc/machine-id")
    return f"{socket.gethostname()} {identity.read_text().strip() if identity.exists() else ''}"


def _nearest_home(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / ".telecine").is_dir():
            return folder / ".telecine"
    return Path.home() / ".telecine"


def _store_uri(text: str) -> str:
    uri = text if "://" in text else f"file://{Path(text).expanduser().absolute()}"
    if "@" in urlsplit(uri).netloc:
        raise InputError("TELECINE_STORE must not hold credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not uri.startswith(("file:///", "s3://")):
        raise InputError(f"TELECINE_STORE must be file:///folder, s3://bucket/prefix or a path, got {text!r}")
    return uri.rstrip("/")


def port(environment: Mapping[str, str], variable: str, default: int) -> int:
    """A port from a variable; raises :class:`InputError` for what is none."""
    text = environment.get(variable) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InputError(f"{variable} must be a port from 1 to 65535, got {text!r}")
    return int(text)


def _check(settings: Settings) -> None:
    if "@" in urlsplit(settings.tracking_uri).netloc:
        raise InputError(
            "TELECINE_TRACKING_URI must not hold credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if urlsplit(settings.tracking_uri).scheme not in ("sqlite", "http", "https"):
        raise InputError(f"TELECINE_TRACKING_URI must be sqlite:///file or http(s)://…, got {settings.tracking_uri!r}")
    if settings.store_is_local and not settings.tracker_is_local and not settings.tracker_is_loopback:
        raise InputError(
            "TELECINE_TRACKING_URI names a server elsewhere and TELECINE_STORE this machine's disk, which that server "
            "may not register models from; use an s3:// store, or unset TELECINE_TRACKING_URI"
        )
    if settings.runner not in RUNNERS:
        raise InputError(f"TELECINE_RUNNER must be one of {', '.join(RUNNERS)}, got {settings.runner!r}")
    _check_runner(settings)


def _check_runner(settings: Settings) -> None:
    """Refuse a runner whose components would find neither their tracker nor their store."""
    if settings.runner != "process" and settings.tracker_is_local:
        cure = "set TELECINE_TRACKING_URI to an MLflow server"
        cure += "; make demo and make up start one by themselves" if settings.runner == "container" else ""
        raise InputError(
            f"the {settings.runner} runner: a component outside this Python cannot use MLflow's database "
            f"{settings.tracking_uri}; {cure}"
        )
    if settings.runner == "cluster" and settings.store_is_local:
        raise InputError(
            "the cluster runner: no pod reaches this machine's disk, got "
            f"TELECINE_STORE={settings.store_uri}; use an s3:// store"
        )
    if settings.runner == "cluster" and settings.tracker_is_loopback:
        raise InputError(
            f"the cluster runner: a pod cannot reach TELECINE_TRACKING_URI={settings.tracking_uri}, which is this "
            "machine alone; use an MLflow server that this machine and pods reach by the same name"
        )
