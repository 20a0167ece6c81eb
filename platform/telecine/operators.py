"""One Airflow operator for every component and every runner.

Parsing a DAG only checks names; looking up, starting and waiting happen in ``execute``. Success of a task means
that its commit record exists.
"""

import dataclasses
import difflib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, ParamValidationError

from telecine import config, settings
from telecine.component import Component
from telecine.errors import InputError
from telecine.settings import Settings
from telecine.work import runs

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 2.0}
STOP_GRACE_S = 30.0
"""How long a stopped component may take to save before it is killed."""


def params_for(*components: Component) -> dict[str, Param]:
    """Airflow Params for every input that is a value, one section of the trigger form a component.

    Artifacts are what a DAG wires, so they have no Param.
    """
    params = {}
    for found in components:
        for field in dataclasses.fields(found.inputs):
            if config.is_artifact(found.inputs, field.name):
                continue
            schema = config.json_schema(found.inputs, field.name)
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            title = field.name.replace("_", " ")
            params[param_name(found, field.name)] = Param(default, section=found.name, title=title, **schema)
    return params


def param_name(component: Component, field: str) -> str:
    """Name of a component's input among a DAG's Params: ``train_num_steps`` for ``pretrain.train``'s ``num_steps``."""
    return f"{component.name.rpartition('.')[2]}_{field}"


def check_conf(params: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` for a name that no Param has (Airflow ignores it) or a value that its Param refuses.

    Args:
        params: a DAG's ``params``.
        conf: what somebody wants to start it with.
    """
    for name, value in conf.items():
        if name not in params:
            near = difflib.get_close_matches(name, params, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "the trigger form lists them"
            raise InputError(f"the DAG has no Param {name!r}; {hint}")
        try:
            params.get_param(name).resolve(value)  # type: ignore[attr-defined]
        except ParamValidationError as error:
            raise InputError(f"Param {name}: {str(error).partition(chr(10))[0]}, got {value!r}") from None


class ComponentOperator(BaseOperator):
    """Run one component, or point to the commit that already stands.

    Args:
        component: what to run.
        inputs: values that the DAG decides: constants, templates, other tasks' outputs. Every other input is taken
            from the DAG's Params under :func:`param_name`, where there is one.
        role: suffix of the task id where a component appears twice in a DAG.
        unless: name of a Param; the task is skipped when it is set.

    Raises:
        InputError: while the DAG is parsed, for an input that the component does not have.
    """

    template_fields: Sequence[str] = ("inputs",)
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        component: Component,
        inputs: Mapping[str, Any] | None = None,
        role: str = "",
        unless: str = "",
        **kwargs: Any,
    ) -> None:
        task_id = f"{component.name}-{role}" if role else component.name
        for name in inputs or {}:
            config.check_name(component.inputs, name, owner=f"task {task_id}")
        super().__init__(task_id=task_id, multiple_outputs=True, **{**RETRIES, **kwargs})
        self.component = component
        self.inputs = dict(inputs or {})
        self.unless = unless
        self._child: subprocess.Popen[str] | None = None

    def or_param(self, name: str, param: str) -> str:
        """This task's output as a template, unless the Param is set (and this task is therefore skipped)."""
        config.check_name(self.component.outputs, name, owner=f"task {self.task_id}: outputs")
        return f"{{{{ params.{param} or ti.xcom_pull(task_ids='{self.task_id}')['{name}'] }}}}"

    def out(self, name: str) -> "XComArg":
        """An output of this task as an input of another; raises :class:`InputError` for a name it does not have."""
        config.check_name(self.component.outputs, name, owner=f"task {self.task_id}: outputs")
        return self.output[name]  # type: ignore[index, no-any-return]

    def execute(self, context: "Context") -> dict[str, Any]:
        """Look up, else run and wait; returns the outputs."""
        try:
            here = settings.from_environment()
            run = _run_of(context, here)
        except InputError as error:
            raise AirflowFailException(str(error)) from None
        if self.unless and context["params"].get(self.unless):
            reason = f"{self.unless} is set"
            self._point(run, here, "skipped", reason)
            raise AirflowSkipException(f"{self.component.name} has nothing to do: {reason}")
        try:
            check_conf(context["dag"].params, context["dag_run"].conf or {})
            inputs = self.component.parse(self._values(context))
            outputs = self._reuse(inputs, run, here)
        except InputError as error:
            self._point(run, here, "failed", "refused", error=str(error))
            raise AirflowFailException(str(error)) from None
        return outputs if outputs is not None else self._run_process(inputs, run, here, context)

    def _point(self, run: str, here: Settings, decision: str, reason: str, error: str | None = None) -> None:
        """Record a task that met no work at all."""
        from telecine.storage import Store

        pointer = runs.Pointer(
            task=self.task_id,
            component=self.component.name,
            key="",
            decision=decision,
            reason=reason,
            inputs={},
            error=error,
            exit_code=InputError.exit_code if error else 0,
        )
        runs.point(Store(here.store_uri), run, pointer)

    def _values(self, context: "Context") -> dict[str, Any]:
        names = {
            field.name: param_name(self.component, field.name) for field in dataclasses.fields(self.component.inputs)
        }
        values = {field: context["params"][param] for field, param in names.items() if param in context["params"]}
        return values | self.inputs

    def _reuse(self, inputs: Any, run: str, here: Settings) -> dict[str, Any] | None:
        from telecine.execution import Call, reuse

        call = Call(component=self.component, inputs=inputs, run=run, task=self.task_id, settings=here)
        result = reuse(call)
        if result is None:
            return None
        self.log.info("event=reused component=%s reason=%r", self.component.name, result.reason)
        return result.outputs

    def _run_process(self, inputs: Any, run: str, here: Settings, context: "Context") -> dict[str, Any]:
        """The process runner: the component's command line as a child of this task."""
        with tempfile.TemporaryDirectory(prefix="telecine-") as folder:
            result = Path(folder) / "result.json"
            command = [sys.executable, "-P", "-m", "telecine.cli", "run", self.component.name]
            command += ["--inputs", json.dumps(dataclasses.asdict(inputs)), "--result", str(result)]
            command += ["--run", run, "--task", self.task_id]
            environment = os.environ | here.environment()
            environment |= {"TELECINE_PARENT_PID": str(os.getpid()), "TELECINE_TRY": str(context["ti"].try_number)}
            code = self._wait(command, environment)
            if code != 0:
                raise _failure(self.component.name, code)
            return self._committed(json.loads(result.read_text())["key"], here)

    def _committed(self, key: str, here: Settings) -> dict[str, Any]:
        """Outputs by the commit record: the child's exit code alone is no success."""
        from telecine.storage import Store
        from telecine.work import commits

        store = Store(here.store_uri)
        record = commits.read(store, f"work/{self.component.name}/{key}/commit.json")
        if record is None:
            raise AirflowException(f"{self.component.name}: its process ended well, but there is no commit at {key}")
        return commits.resolved_outputs(store, record)

    def _wait(self, command: list[str], environment: dict[str, str]) -> int:
        """Run to the end, each line into the task's log."""
        self._child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert self._child.stdout is not None
        try:
            for line in self._child.stdout:
                self.log.info(line.rstrip())
            return self._child.wait()
        finally:
            self.on_kill()

    def on_kill(self) -> None:
        """Ask the component to save when its task is stopped, and kill it when it does not end in time."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()


class CloseRun(BaseOperator):
    """End a run's MLflow parent, whatever its tasks did, with each task's decision and figures to compare runs by.

    A DAG appends it ``.as_teardown()``: it runs when all else is done, and says nothing about the DAG run's success.
    """

    def __init__(self, *, task_id: str = "close_run", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, retries=0, **kwargs)

    def execute(self, context: "Context") -> None:
        """Close the parent as finished if every component met a commit, else as failed."""
        from telecine import tracking
        from telecine.storage import Store

        here = settings.from_environment()
        run = _run_of(context, here)
        store = Store(here.store_uri)
        met = runs.pointers(store, run)
        done = {pointer.task for pointer in met if pointer.decision in runs.SETTLED}
        expected = {task.task_id for task in context["dag"].tasks if isinstance(task, ComponentOperator)}
        client = tracking.connect(here)
        parent = tracking.parent_run(client, here, store, run)
        tracker = tracking.RunTracker(client, parent, parent)
        tracker.tags({f"decision.{p.task}": f"{p.decision} {p.mlflow_run_id or ''}".strip() for p in met})
        for pointer in met:
            tracker.metrics(tracking.numbers(pointer.outputs or {}, prefix=f"{pointer.task}/"), step=0)
            if pointer.decision in ("ran", "reused", "lost") and pointer.mlflow_run_id:
                tracking.finish(client, pointer.mlflow_run_id)
        tracker.flush()
        tracking.close(client, parent, succeeded=expected <= done)
        self.log.info("event=closed run=%s unfinished=%s", run, sorted(expected - done))


def _run_of(context: "Context", here: Settings) -> str:
    """The slug of this DAG run, registered with where it came from.

    Whoever starts a DAG run may name its slug in TELECINE_RUN: going on with an interrupted run makes a new Airflow
    run id, and must not make a new run.
    """
    from telecine.execution import origin_record

    dag_run = context["dag_run"]
    run = runs.check_slug(os.environ.get("TELECINE_RUN") or runs.slug(dag_run.dag_id, dag_run.run_id))
    origin_record(here, run, {"dag_id": dag_run.dag_id, "airflow_run_id": dag_run.run_id})
    return run


def _failure(name: str, code: int) -> AirflowException:
    if code == InputError.exit_code:
        return AirflowFailException(f"{name}: inputs or credentials are wrong (exit 78); its last line says which")
    cause = f"killed by signal {-code}" if code < 0 else f"exit {code}"
    return AirflowException(f"{name}: {cause}; a retry goes on from its last checkpoint or item")
