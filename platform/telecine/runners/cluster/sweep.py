"""Finished RayJobs and TrainJobs: their operators keep them for ever, as the Job controller does not keep Jobs."""

import datetime
from collections.abc import Iterator

from telecine.cluster_profile import Profile
from telecine.kube import PLURALS, VERSIONS, Ref
from telecine.runners.cluster.answers import Object, condition, text
from telecine.runners.cluster.api import Api
from telecine.runners.cluster.words import Seen, state

KINDS = ("RayJob", "TrainJob")
OURS = {"app.kubernetes.io/managed-by": "telecine"}


def sweep(api: Api, profile: Profile, *, now: datetime.datetime, dry_run: bool = False) -> list[str]:
    """Delete what ended longer than the profile's ``ttl_s`` ago; returns the names. An absent operator has none."""
    swept = []
    for kind in KINDS:
        for job in _ours(api, kind, profile.namespace):
            ended = _ended(job)
            if ended is None or (now - ended).total_seconds() <= profile.ttl_s:
                continue
            metadata = job["metadata"]
            if dry_run or api.delete(_ref(kind, profile.namespace, metadata["name"]), uid=metadata["uid"]):
                swept.append(f"{kind} {metadata['name']}")
    return swept


def _ours(api: Api, kind: str, namespace: str) -> Iterator[Object]:
    selector = ",".join(f"{key}={value}" for key, value in OURS.items())
    path = f"/apis/{VERSIONS[kind]}/namespaces/{namespace}/{PLURALS[kind]}"
    for job in (api.optional(path, labelSelector=selector) or {}).get("items") or []:
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
