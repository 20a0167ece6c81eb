"""Short questions to MLflow, asked without importing it: that alone takes longer than the answer may.

A local tracker is read as the SQLite file that it is, a server through its REST interface
(https://mlflow.org/docs/latest/api_reference/rest-api.html) with the credentials that MLflow itself reads from the
environment. Whatever writes goes through :mod:`telecine.tracking`.
"""

import base64
import http.client
import json
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from telecine.errors import InputError, RetryLater
from telecine.redaction import mask
from telecine.settings import Settings

TIMEOUT_S = 5.0
NOT_FOUND = (b"RESOURCE_DOES_NOT_EXIST", b"INVALID_PARAMETER_VALUE")


def check(settings: Settings) -> str:
    """What stands behind ``TELECINE_TRACKING_URI``, in a few words.

    Raises:
        RetryLater: it does not answer.
        InputError: it refuses the credentials, or the file is no database of MLflow.
    """
    if not _is_file(settings):
        _get(settings, "experiments/search", max_results="1")
        return f"{mask(settings.tracking_uri)} answers"
    if not _database(settings).exists():
        return f"{settings.tracking_uri} will be made at its first use"
    _query(settings, "select version_num from alembic_version")
    return settings.tracking_uri


def version_of(settings: Settings, name: str, alias: str) -> str | None:
    """Version of a registered model that an alias points to, or None; raises as :func:`check` does."""
    if _is_file(settings):
        query = "select version from registered_model_aliases where name=? and alias=?"
        rows = _query(settings, query, name, alias) if _database(settings).exists() else []
        return str(rows[0][0]) if rows else None
    found = _get(settings, "registered-models/alias", name=name, alias=alias)
    return str(found["model_version"]["version"]) if found else None


def _is_file(settings: Settings) -> bool:
    return urlsplit(settings.tracking_uri).scheme == "sqlite"


def _database(settings: Settings) -> Path:
    path = urlsplit(settings.tracking_uri).path
    return Path(path[1:] if path.startswith("//") else path)


def _query(settings: Settings, query: str, *values: str) -> list[Any]:
    path = _database(settings)
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        raise RetryLater(f"MLflow's database {path} does not answer: {error}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"TELECINE_TRACKING_URI: {path} is no database of MLflow: {error}; move it away") from None


def _get(settings: Settings, method: str, **query: str) -> dict[str, Any] | None:
    """The server's answer, None where it knows no such thing."""
    shown, parts = mask(settings.tracking_uri), urlsplit(settings.tracking_uri)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        path = f"{parts.path.rstrip('/')}/api/2.0/mlflow/{method}?{urlencode(query)}"
        connection.request("GET", path, headers=_credentials(parts.username, parts.password))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise RetryLater(f"MLflow at {shown} does not answer: {error}") from None
    finally:
        connection.close()
    if answer.status in (401, 403):
        raise InputError(f"MLflow at {shown} refuses the credentials; check MLFLOW_TRACKING_USERNAME and its password")
    if answer.status in (400, 404) and any(code in body for code in NOT_FOUND):
        return None
    if answer.status != 200:
        raise RetryLater(f"MLflow at {shown} answers {answer.status} {answer.reason}")
    found: dict[str, Any] = json.loads(body)
    return found


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    user = user or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user is None or password is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
