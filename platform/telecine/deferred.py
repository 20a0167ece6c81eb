"""The two halves of a component's task on a cluster: hand the work over and wait, then come back and tell."""

import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from telecine import cluster_profile
from telecine.errors import InputError
from telecine.launch import Launch
from telecine.redaction import mask
from telecine.runners.cluster import api, jobs, pointers, records
from telecine.runners.cluster import sweep as sweeping
from telecine.runners.cluster.jobs import Submission
from telecine.runners.cluster.words import State
from telecine.storage import Store
from telecine.trigger import ClusterTrigger
from telecine.work import commits, waits


def begin(launch: Launch) -> tuple[ClusterTrigger, str]:
    """Submit the work; returns what waits for it, and a line for the log.

    A quota that is full and a cluster that is away are waited for, too.

    Raises:
        InputError: no cluster, no right, no such kind, or a profile that cannot be.
    """
    here = cluster_profile.load()
    made, found = jobs.submit(api.connect(), launch, here, Store(launch.settings.store_uri))
    line = f"event=submitted object={made.object!r} namespace={made.ref.namespace} reason={found.reason!r}"
    return ClusterTrigger(made.plain()), mask(line)


def sweep(*, dry_run: bool) -> list[str]:
    """Delete the cluster's finished jobs that stay for ever by themselves; returns their names."""
    now = datetime.datetime.now(datetime.UTC)
    return sweeping.sweep(api.connect(), cluster_profile.load(), now=now, dry_run=dry_run)


def said(event: dict[str, Any]) -> list[str]:
    """What the attempts and the pods of the job wrote, for the log of its task."""
    made = jobs.submission(event["submission"])
    return [mask(line) for line in jobs.said(Store(made.store_uri), made)]


def settle(event: dict[str, Any]) -> dict[str, Any]:
    """The outputs, by the commit record.

    Raises:
        AirflowFailException: a retry would fail again, or wait in vain again.
        AirflowException: a retry goes on where the work stopped.
    """
    made, found = jobs.submission(event["submission"]), State(**event["state"])
    store = Store(made.store_uri)
    waits.clear(store, made.run, made.task)
    record = commits.read(store, f"{made.prefix}/commit.json")
    if record is not None:
        pointers.to_commit(store, made, record)
        return commits.resolved_outputs(store, record)
    pointers.to_failure(store, made, found)
    raise _failure(made, found, goes_on=records.is_made(store, made.prefix, made.number))


def _failure(made: Submission, found: State, *, goes_on: bool) -> AirflowException:
    what = mask(f"{made.component}: {made.object}: {found.reason}")
    if found.phase == "locked_out" and goes_on:
        return AirflowFailException(f"{what}. The job itself goes on; clear the task to wait for it again")
    if found.code == InputError.exit_code:
        return AirflowFailException(f"{what} (exit 78: a retry would fail again)")
    if found.hopeless:
        return AirflowFailException(
            f"{what}. Mend that, then clear the task: it goes on from its last checkpoint or item"
        )
    elsewhere = f", on another node than {found.node}" if found.hardware and found.node else ""
    return AirflowException(f"{what}; a retry goes on from its last checkpoint or item{elsewhere}")
