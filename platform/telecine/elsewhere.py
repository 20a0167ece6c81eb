"""``telecine run --runner container`` and ``--runner cluster``: started from a shell, watched to the end."""

import sys
import time

from telecine import cluster_profile, execution
from telecine.errors import HardwareFault, InputError, RetryLater, TelecineError
from telecine.execution import Call, Result
from telecine.launch import Launch
from telecine.redaction import mask
from telecine.runners import container
from telecine.runners.cluster import api, jobs, pointers
from telecine.runners.cluster.watch import Watch
from telecine.storage import Store
from telecine.work import commits, runs
from telecine.work.digests import Digests

ERRORS = {kind.exit_code: kind for kind in (InputError, RetryLater, HardwareFault)}


def run(launch: Launch) -> Result:
    """Return the commit of the work, made now by the launch's runner unless an intact one stands.

    Raises:
        InputError, RetryLater, HardwareFault: as the component ended, or where it cannot be started.
        TelecineError: it failed in another way.
    """
    here = launch.settings
    call = Call(component=launch.component, inputs=launch.inputs, run=launch.run, task=launch.task, settings=here)
    store = Store(here.store_uri)
    runs.register(store, launch.run)
    _, standing, reason = execution.look_up(call, store, Digests(here.home))
    if standing is not None:
        return standing
    code, cause = {"container": _in_container, "cluster": _on_cluster}[here.runner](launch)
    record = commits.read(store, f"{launch.prefix}/commit.json")
    if record is None:
        raise ERRORS.get(code, TelecineError)(f"{launch.component.name}: {cause}")
    outputs = commits.resolved_outputs(store, record)
    return Result(decision="ran", reason=reason, commit=record, outputs=outputs)


def _in_container(launch: Launch) -> tuple[int, str]:
    """Exit code and cause of a container, each line of it passed on."""
    child = container.start(launch)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            _say(line.rstrip())
        code = child.wait()
    finally:
        child.stop()
    return code, child.cause() if code else "it ended well, but there is no commit; compare TELECINE_STORE"


def _on_cluster(launch: Launch) -> tuple[int, str]:
    """Exit code and cause of a job; what it waits for is said at each change."""
    store = Store(launch.settings.store_uri)
    made, found = jobs.submit(api.connect(), launch, cluster_profile.load(), store)
    _say(f"event=submitted object={made.object!r} namespace={made.ref.namespace} reason={found.reason!r}")
    watch = Watch(made)
    try:
        while (ended := watch.step()) is None:
            _say(*watch.take_lines())
            time.sleep(watch.pause_s)
    except KeyboardInterrupt:
        _say(f"{made.object} goes on; the same command watches it again, kubectl delete stops it")
        raise
    _say(*watch.take_lines(), *jobs.said(store, made))
    record = commits.read(store, f"{made.prefix}/commit.json")
    pointers.to_commit(store, made, record) if record else pointers.to_failure(store, made, ended)
    return ended.code or 0, f"{made.object}: {ended.reason}"


def _say(*lines: str) -> None:
    for line in lines:
        print(mask(line), file=sys.stderr, flush=True)
