"""The one id of a run, short and plain enough to be a label and a folder's name everywhere."""

import hashlib
import re

from telecine.errors import InputError

MAX_LENGTH = 40


def slug(dag_id: str, airflow_run_id: str) -> str:
    """Label of a run, at most 40 characters of ``[a-z0-9-]``, the same for the same DAG and Airflow run id."""
    digest = hashlib.sha256(f"{dag_id}\n{airflow_run_id}".encode()).hexdigest()[:10]
    stem = re.sub(r"[^a-z0-9]+", "-", dag_id.lower()).strip("-")[: MAX_LENGTH - len(digest) - 1].strip("-")
    return f"{stem}-{digest}"


def is_slug(text: str) -> bool:
    """Whether it can be the label of a run."""
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", text) is not None


def check_slug(run: str) -> str:
    """The slug itself; raises :class:`InputError` for what cannot be a label and a folder name."""
    if not is_slug(run):
        raise InputError(f"a run must be 1 to {MAX_LENGTH} characters of a-z, 0-9 and -, got {run!r}")
    return run
