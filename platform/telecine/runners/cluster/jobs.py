"""A component's work as a job of a cluster: submitted once, looked at, and ended by whoever sees it first.

The commit in the store says whether the work is done; a job only says why it is not, yet.
"""

import dataclasses
import itertools
import json
import time
from typing import Any

from telecine import kube
from telecine.cluster_profile import Profile
from telecine.errors import HardwareFault, InputError, RetryLater, TelecineError
from telecine.kube import Ref
from telecine.launch import Launch
from telecine.pods import escape
from telecine.redaction import mask
from telecine.runners.cluster import look as looking
from telecine.runners.cluster import pods, pointers, records
from telecine.runners.cluster.api import Api, Refused
from telecine.runners.cluster.records import Ended, Record
from telecine.runners.cluster.words import Seen, State, state
from telecine.storage import Store

OVER = ("succeeded", "failed", "gone")
DONE = State(phase="succeeded", reason="its commit stands", code=0)
NO_COMMIT = "it ended well, but there is no commit: what it wrote is not where this task looks; compare TELECINE_STORE"
PATIENCE_S = 300.0
"""How long what waiting does not mend is waited for all the same: a secret may be made, a registry may come back."""
LAST_WORDS_S, PAUSE_S = 3.0, 0.5
"""How long the look that finds a job's end asks again for logs that it does not get, and its pause between tries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
    """One task's claim to one numbered job, in plain values, so that any process can go on with it.

    Attributes:
        component, prefix: the work, and its folder in the store.
        run, task: who waits for it; the job itself may carry another run's name.
        manifest: what to create where it does not stand yet.
        max_pending_s: how long it may wait to start.
    """

    component: str
    prefix: str
    run: str
    task: str
    store_uri: str
    number: int
    ref: Ref
    manifest: dict[str, Any]
    max_pending_s: float
    patience_s: float = PATIENCE_S

    @property
    def object(self) -> str:
        """Kind and name, as a person writes them after ``kubectl get``."""
        return f"{self.ref.kind} {self.ref.name}"

    @property
    def key(self) -> str:
        """Content key of the work."""
        return self.prefix.rpartition("/")[2]

    def plain(self) -> dict[str, Any]:
        """As JSON values; see :func:`submission`."""
        return dataclasses.asdict(self)


def submission(values: dict[str, Any]) -> Submission:
    """What :meth:`Submission.plain` gave."""
    return Submission(**{**values, "ref": Ref(**values["ref"])})


def submit(api: Api, launch: Launch, profile: Profile, store: Store) -> tuple[Submission, State]:
    """Find the job that does this work, or make one; returns it with what is known of it.

    The task points to the work from now on, so that nothing it needs is garbage while it waits.

    Raises:
        InputError: the manifest, or the cluster, refuses it for good.
    """
    pointers.to_waiting(store, launch)
    try:
        return _submitted(api, launch, profile, store)
    except TelecineError as error:
        pointers.to_refusal(store, launch, error)
        raise


def _submitted(api: Api, launch: Launch, profile: Profile, store: Store) -> tuple[Submission, State]:
    while True:
        made = _claimed(launch, profile, store)
        try:
            found = _standing(api, store, made)
        except RetryLater as error:
            return made, State(phase="away", reason=str(error))
        if found.phase not in OVER or is_committed(store, made):
            return made, found
        finish(store, made, found)


def _claimed(launch: Launch, profile: Profile, store: Store) -> Submission:
    """The newest number that has not ended, else the next one."""
    while True:
        record = records.newest(store, launch.prefix)
        if record is not None and records.ended(store, launch.prefix, record.number) is None:
            return _submission(launch, profile, store, record.number, record)
        number = record.number + 1 if record else 1
        made = _submission(launch, profile, store, number, None)
        if records.claim(store, launch.prefix, number, made.ref, run=launch.run, task=launch.task):
            return made


def _submission(launch: Launch, profile: Profile, store: Store, number: int, record: Record | None) -> Submission:
    nodes = records.broken_nodes(store, launch.prefix)
    manifest = kube.manifest(launch, profile, number, nodes)
    return Submission(
        component=launch.component.name,
        prefix=launch.prefix,
        run=launch.run,
        task=launch.task,
        store_uri=launch.settings.store_uri,
        number=number,
        ref=record.ref if record else kube.ref(manifest),
        manifest=manifest,
        max_pending_s=profile.of(launch.component).max_pending_s,
    )


def _standing(api: Api, store: Store, made: Submission) -> State:
    """The state of a submission whose object stands after this call, where the cluster lets it."""
    job = api.get(made.ref)
    if job is not None and job["metadata"].get("deletionTimestamp"):
        return State(phase="gone", reason="it is being deleted from outside")
    if job is not None:
        _check_store(job, made)
    if job is None and not records.is_made(store, made.prefix, made.number):
        refused = make(api, store, made)
        return refused or State(phase="starting", reason=f"{made.object} was created")
    records.mark_made(store, made.prefix, made.number)
    return look(api, store, made)


def make(api: Api, store: Store, made: Submission) -> State | None:
    """Create the object of a claimed number, if that has not been done; the state of one that a quota refuses."""
    if records.is_made(store, made.prefix, made.number):
        return None
    if over := records.ended(store, made.prefix, made.number):
        return State(phase="gone", reason=over.reason)
    if kube.ref(made.manifest) != made.ref:
        return State(phase="failed", reason=f"{made.object} was never made, and the profile has changed since")
    answer = api.create(made.manifest, made.ref)
    if isinstance(answer, Refused):
        why = pods.refusal(answer.reason)
        return State(phase="refused", reason=why.text if why else answer.reason)
    _check_store(answer, made)
    records.mark_made(store, made.prefix, made.number)
    if over := records.ended(store, made.prefix, made.number):  # it was stopped while it was being made
        api.delete(made.ref, uid=answer["metadata"]["uid"])
        return State(phase="gone", reason=over.reason)
    return None


def _check_store(job: Any, made: Submission) -> None:
    """Two deployments name the same work alike, and must not take each other's job for their own."""
    if json.dumps(escape(made.store_uri)) not in json.dumps(job.get("spec")):
        raise InputError(
            f"{made.object} in namespace {made.ref.namespace} is another deployment's and writes to another store than "
            f"{made.store_uri}; give each deployment a namespace of its own in the profile that TELECINE_CLUSTER names"
        )


def is_committed(store: Store, made: Submission) -> bool:
    """Whether the work is done, whoever did it."""
    return store.head(f"{made.prefix}/commit.json") is not None


def look(api: Api, store: Store, made: Submission) -> State:
    """What has become of a job: the commit first, then the object, its pods and why it waits."""
    if is_committed(store, made):
        return DONE
    seen = looking.gather(api, made.ref, made.manifest)
    found = state(seen)
    _keep_words(api, store, made, seen, found)
    if found.phase not in OVER:
        return found
    if is_committed(store, made):  # between the first look and the second
        return DONE
    return dataclasses.replace(found, phase="failed", reason=NO_COMMIT) if found.phase == "succeeded" else found


def finish(store: Store, made: Submission, found: State) -> State:
    """Record how a number ended; returns it as the component itself told it, where it did.

    The order: the commit, what the component wrote to its run's pointer, the pod's exit code, nothing.
    """
    if found.phase != "succeeded":
        found = _told(store, made, found)
    hardware = found.hardware or found.code == HardwareFault.exit_code
    how = Ended(reason=found.reason, code=found.code, node=found.node, hardware=hardware)
    stands = records.mark_ended(store, made.prefix, made.number, how)
    return dataclasses.replace(
        found, reason=stands.reason, code=stands.code, node=stands.node, hardware=stands.hardware
    )


def _told(store: Store, made: Submission, found: State) -> State:
    record = records.read(store, made.prefix, made.number)
    if record is None or records.pointer_changed(store, record.run, record.task) == record.pointed:
        return found
    pointer = records.pointer(store, record.run, record.task)
    if pointer is None:
        return found
    same = pointer.decision == "failed" and pointer.key == made.key and found.code in (None, pointer.exit_code)
    if not same or not pointer.error or found.hopeless:
        return found
    return dataclasses.replace(found, code=pointer.exit_code, reason=pointer.error)


def owns(store: Store, made: Submission) -> bool:
    """Whether this very task claimed the number: nobody else may end its job."""
    record = records.read(store, made.prefix, made.number)
    return record is not None and (record.run, record.task) == (made.run, made.task)


def stop(api: Api, store: Store, made: Submission, reason: str) -> bool:
    """Delete the job because its task was killed; False where it is another run's, or another task's.

    The number ends first: whoever is about to make its object looks for that afterwards.
    """
    if not owns(store, made):
        return False
    records.mark_ended(store, made.prefix, made.number, Ended(reason=reason))
    job = api.get(made.ref)
    return job is None or api.delete(made.ref, uid=job["metadata"]["uid"])


def give_up(api: Api, store: Store, made: Submission, reason: str) -> bool:
    """Delete a job that still waits to start; False where it has started, or changed while it was looked at."""
    if not records.is_made(store, made.prefix, made.number):
        return stop(api, store, made, reason)
    seen = looking.gather(api, made.ref, made.manifest)
    if seen.job is None:
        return True
    metadata = seen.job["metadata"]
    if state(seen).phase not in looking.PENDING:
        return False
    return api.delete(made.ref, uid=metadata["uid"], resource_version=metadata["resourceVersion"])


def said(store: Store, made: Submission) -> list[str]:
    """What the attempts of a number shipped, then what its pods said that is not among it."""
    from telecine.work import logs

    record = records.read(store, made.prefix, made.number)
    before = record.logs if record else []
    fresh = [entry.path for entry in store.entries(f"{made.prefix}/logs") if entry.path not in before]
    lines = [text for path in fresh for _, text in logs.parse(store.read(path).decode(errors="replace"))]
    shipped = set(lines)
    if store.head(records.log_path(made.prefix, made.number)) is not None:
        kept = store.read(records.log_path(made.prefix, made.number)).decode(errors="replace").splitlines()
        lines += [line for line in kept if line not in shipped]
    return lines


def _keep_words(api: Api, store: Store, made: Submission, seen: Seen, found: State) -> None:
    """Keep what pods said that failed, each once, before the cluster forgets them; first where ``found`` points to.

    A log that cannot be had now is asked for again by the next look. None follows the one that finds the end: it asks
    a while longer, and then keeps why there is no log, because an end is worth more than words.
    """
    failed = [pod for pod in seen.pods if looking.has_failed(pod)]
    if not failed:
        return
    path = records.log_path(made.prefix, made.number)
    kept = store.read(path).decode(errors="replace") if store.head(path) else ""
    missing = [pod for pod in failed if _head(pod) not in kept.splitlines()]
    missing.sort(key=lambda pod: pod.get("spec", {}).get("nodeName") != found.node)
    until = time.monotonic() + LAST_WORDS_S if found.phase in OVER else None
    new = [words for pod in missing[: looking.MAX_PODS] if (words := _words(api, made.ref.namespace, pod, until))]
    if new:
        store.write(path, "".join([kept, *new]).encode())


def _head(pod: Any) -> str:
    return f"== pod {pod['metadata']['name']} on {pod.get('spec', {}).get('nodeName') or 'no node'}"


def _words(api: Api, namespace: str, pod: Any, until: float | None) -> str:
    """What a pod said; nothing where another look asks again, because ``until`` is None."""
    parts, whole = looking.last_words(api, namespace, pod)
    while not whole and until is not None and time.monotonic() < until:
        time.sleep(PAUSE_S)
        parts, whole = looking.last_words(api, namespace, pod)
    if not whole and until is None:
        return ""
    lines = itertools.chain.from_iterable((f"-- {container}", *text.splitlines()) for container, text in parts)
    return "".join(f"{mask(line)}\n" for line in [_head(pod), *lines])
