"""Finished RayJobs and TrainJobs: their operators keep them for ever, as the Job controller does not keep Jobs."""

import contextlib
import datetime
import itertools
from collections.abc import Iterator

from telecine import component
from telecine.cluster_profile import Profile
from telecine.kube import PLURALS, VERSIONS, Ref
from telecine.runners.cluster.answers import Object, condition, text
from telecine.runners.cluster.api import Api, NotInstalled
from telecine.runners.cluster.words import Seen, state

KINDS = ("RayJob", "TrainJob")
OURS = {"app.kubernetes.io/managed-by": "telecine"}


def sweep(api: Api, profile: Profile, *, now: datetime.datetime, dry_run: bool = False) -> list[str]:
    """Delete what ended longer ago than its component's ``ttl_s``, in every namespace that the profile names.

    Returns the names. An operator that is not installed has none.

    Raises:
        RetryLater, InputError: the cluster does not answer, or does not let us look or delete.
    """
    swept = []
    for kind, namespace in itertools.product(KINDS, _namespaces(profile)):
        for job in _ours(api, kind, namespace):
            ended, metadata = _ended(job), job["metadata"]
            if ended is None or (now - ended).total_seconds() <= _ttl_s(profile, job):
                continue
            if dry_run or api.delete(_ref(kind, namespace, metadata["name"]), uid=metadata["uid"]):
                swept.append(f"{kind} {metadata['name']}")
    return swept


def _namespaces(profile: Profile) -> list[str]:
    """Where the profile puts jobs: its own namespace, and those of components' tables."""
    return sorted({profile.namespace, *(profile.of(component.find(name)).namespace for name in profile.components)})


def _ttl_s(profile: Profile, job: Object) -> float:
    name = text(job, "metadata", "annotations", "telecine.io/component")
    return (profile.of(component.find(name)) if name in profile.components else profile).ttl_s


def _ours(api: Api, kind: str, namespace: str) -> Iterator[Object]:
    selector = ",".join(f"{key}={value}" for key, value in OURS.items())
    path = f"/apis/{VERSIONS[kind]}/namespaces/{namespace}/{PLURALS[kind]}"
    with contextlib.suppress(NotInstalled):
        for job in api.items(path, labelSelector=selector):
            if OURS.items() <= (job["metadata"].get("labels") or {}).items():
                yield job


def _ref(kind: str, namespace: str, name: str) -> Ref:
    return Ref(api_version=VERSIONS[kind], kind=kind, plural=PLURALS[kind], namespace=namespace, name=name)


def _ended(job: Object) -> datetime.datetime | None:
    """When the job ended, by its operator; None while it has not, or does not say."""
    if state(Seen(job=job)).phase not in ("succeeded", "failed"):
        return None
    ends = [text(condition(job, kind), "lastTransitionTime") for kind in ("Complete", "Failed")]
    stamp = text(job, "status", "endTime") or max(ends)
    return datetime.datetime.fromisoformat(stamp) if stamp else None
