"""The Airflow trigger that waits for one job of the cluster, without a worker and across restarts of the triggerer."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from telecine.errors import RetryLater
from telecine.redaction import mask
from telecine.runners.cluster import api, jobs
from telecine.runners.cluster.watch import Watch
from telecine.storage import Store
from telecine.work import waits

STOP_PAUSES_S = (1.0, 3.0, 6.0)
"""Between the tries to delete a job; Airflow gives 30 s in all."""


class ClusterTrigger(BaseTrigger):
    """Fires once, when the work is committed or its job has come to an end without.

    Args:
        submission: :meth:`telecine.runners.cluster.jobs.Submission.plain`. Credentials are read from the environment
            of the triggerer.
    """

    def __init__(self, submission: dict[str, Any]) -> None:
        super().__init__()
        self.submission = jobs.submission(submission)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        return "telecine.trigger.ClusterTrigger", {"submission": self.submission.plain()}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, pause, look again."""
        watch = Watch(self.submission)
        while True:
            found = await asyncio.to_thread(watch.step)
            for line in watch.take_lines():
                self.log.info(mask(line))
            if found is not None:
                yield TriggerEvent({"submission": self.submission.plain(), "state": dataclasses.asdict(found)})
                return
            await asyncio.sleep(watch.pause_s)

    async def on_kill(self) -> None:
        """Delete the job when a person killed its task.

        Airflow also calls this where another triggerer took over because this one's heartbeat was late: the task is
        then still deferred, and its job is left alone.
        """
        if await asyncio.to_thread(self._is_deferred):
            self.log.info("event=left_alone object=%r reason='its task still waits'", self.submission.object)
            return
        for pause_s in (*STOP_PAUSES_S, None):
            try:
                stopped = await asyncio.to_thread(self._stop)
                break
            except RetryLater as error:
                self.log.warning("event=not_stopped object=%r reason=%r", self.submission.object, mask(str(error)))
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
        self.log.info("event=%s object=%r", "stopped" if stopped else "left_alone", self.submission.object)

    def _stop(self) -> bool:
        made = self.submission
        store = Store(made.store_uri)
        stopped = jobs.stop(api.connect(), store, made, "its task was stopped by a person")
        waits.clear(store, made.run, made.task)
        return stopped

    def _is_deferred(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = self.task_instance
        if ti is None:
            return False
        found = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return "deferred" in found.get(ti.run_id, {}).values()
