"""Where this process keeps things: read once from the environment, checked early, passed on as a value.

TELECINE_HOME           folder of everything local   (default: the nearest .telecine above, else ~/.telecine)
TELECINE_STORE          file:// or s3:// URI         (default: <home>/store)
TELECINE_TRACKING_URI   MLflow's                     (default: SQLite under <home>/mlflow)
TELECINE_RUNNER         process | container | cluster
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from telecine.errors import InputError

RUNNERS = ("process", "container", "cluster")


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
    def tracker_is_local(self) -> bool:
        """Whether MLflow is a database file on this machine rather than a server."""
        return urlsplit(self.tracking_uri).scheme in ("sqlite", "file")

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


def _nearest_home(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / ".telecine").is_dir():
            return folder / ".telecine"
    return Path.home() / ".telecine"


def _store_uri(text: str) -> str:
    uri = text if "://" in text else f"file://{Path(text).expanduser().absolute()}"
    if not uri.startswith(("file:///", "s3://")):
        raise InputError(f"TELECINE_STORE must be file:///folder, s3://bucket/prefix or a path, got {text!r}")
    return uri.rstrip("/")


def _check(settings: Settings) -> None:
    if settings.store_is_local and not settings.tracker_is_local:
        raise InputError(
            "TELECINE_TRACKING_URI names a server and TELECINE_STORE this machine's disk, which a server may not "
            "register models from; use an s3:// store, or unset TELECINE_TRACKING_URI"
        )
    if settings.runner not in RUNNERS:
        raise InputError(f"TELECINE_RUNNER must be one of {', '.join(RUNNERS)}, got {settings.runner!r}")
    if settings.runner != "process":
        raise InputError(
            f"TELECINE_RUNNER={settings.runner} is not available in this version; use TELECINE_RUNNER=process"
        )
