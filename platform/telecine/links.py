"""Where a person sees in a browser what a task made: on MLflow's page, or by a link into an ``s3://`` store."""

import os
import re
from urllib.parse import quote, urlsplit

from telecine import buckets
from telecine.errors import RetryLater
from telecine.settings import Settings
from telecine.storage import Store
from telecine.work import runs

PAGE = "TELECINE_MLFLOW_PAGE"
"""Where a deployment whose tracker is a database serves MLflow's page; a tracking server is a page itself."""
LINK_S = 3600
"""The longest life of a signed link in a question, in seconds: whoever may read the question has the object."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")


def page(tracking_uri: str) -> str:
    """MLflow's page: the tracking server's own, else what :data:`PAGE` says; empty where no page is known."""
    server = urlsplit(tracking_uri)
    if server.scheme not in ("http", "https"):
        return os.environ.get(PAGE, "").rstrip("/")
    return server._replace(netloc=server.netloc.rpartition("@")[2]).geturl().rstrip("/")


def plain(text: str) -> str:
    """One line that Markdown shows as it stands, also in a table."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def artifacts(here: Settings, run: str, task: str) -> str:
    """MLflow's page of the artifacts of the work that a task met; a path below it is the page of one file.

    Empty where no page is known, or where the work was done for somebody else's MLflow.
    """
    base = page(here.tracking_uri)
    store = Store(here.store_uri)
    met = [p.mlflow_run_id for p in runs.pointers(store, run) if p.task == task and p.mlflow_run_id]
    if not base or not met:
        return ""
    experiment = _experiment(here, str(met[-1]))
    return f"{base}/#/experiments/{experiment}/runs/{met[-1]}/artifacts" if experiment else ""


def file(page: str, folder: str, name: str, stored_uri: str, *, seconds: float) -> str:
    """Markdown for one file: a link where there is one, else where it lies.

    Args:
        page: what :func:`artifacts` gave.
        folder: folder of the file among the artifacts.
        stored_uri: folder of the same file in the store.
        seconds: how long a person may take; a signed link lives no longer, and at most :data:`LINK_S`.
    """
    if page:
        return f"[{name}]({page}/{quote(folder)}/{quote(name)})"
    if stored_uri.startswith("s3://"):
        life = max(1, min(int(seconds), LINK_S))
        return f"[{name}]({buckets.signed_link(f'{stored_uri}/{name}', seconds=life)})"
    return f"`{stored_uri}/{name}`"


def _experiment(here: Settings, run_id: str) -> str:
    from telecine import tracking

    try:
        client = tracking.connect(here)
        with tracking.translated(here):
            return str(client.get_run(run_id).info.experiment_id) if tracking.knows(client, run_id) else ""
    except RetryLater:
        return ""
