"""When an attempt's work was asked for, when a machine was found for it, and when its process began.

Who starts a component says so in two variables. A pod's manifest is a function of the work alone and holds no time: in
a cluster they are read from what its runner wrote into the store when it claimed the job and watched it.
"""

import itertools
import math
import os
import re
import time
from collections.abc import Mapping

from telecine.errors import InputError
from telecine.launch import PLACED, SUBMITTED
from telecine.storage import Store
from telecine.work import waits
from telecine.work.attempts import Beginning, process_started

_IN_A_POD = "KUBERNETES_SERVICE_HOST"
_num_attempts = itertools.count()


def of_attempt(
    store: Store, prefix: str, *, run: str, task: str, environment: Mapping[str, str] = os.environ
) -> Beginning:
    """The beginning of this process's first attempt, which it was started for; a later one begins when asked.

    Args:
        prefix: folder of the work, relative to the store's root.

    Raises:
        InputError: a variable that is no time.
    """
    if next(_num_attempts) > 0:
        return Beginning(started=time.time())
    return of_process(store, prefix, run=run, task=task, environment=environment)


def of_process(store: Store, prefix: str, *, run: str, task: str, environment: Mapping[str, str]) -> Beginning:
    """The beginning of this process; see :func:`of_attempt`."""
    submitted, placed = (_time(environment, name) for name in (SUBMITTED, PLACED))
    if submitted is None and _IN_A_POD in environment:
        submitted, placed = _of_job(store, prefix, run, task)
    return Beginning(started=process_started(), submitted=submitted, placed=placed)


def _time(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} must be seconds since the epoch, got {text!r}; unset it")
    return value


def _of_job(store: Store, prefix: str, run: str, task: str) -> tuple[float | None, float | None]:
    """When the newest job of this work was claimed, and when its watcher first saw it on a node.

    A watcher looks every ten seconds at least: so late may the second time be, or be missing.
    """
    names = [entry.path.rpartition("/")[2] for entry in store.entries(f"{prefix}/cluster")]
    numbers = [int(found[1]) for name in names if (found := re.fullmatch(r"(\d+)\.json", name))]
    record = store.read_json(f"{prefix}/cluster/{max(numbers)}.json") if numbers else None
    if not record:
        return None, None
    wait = waits.read(store, record.get("run", run), record.get("task", task))
    return float(record["created"]), wait.placed if wait is not None else None
