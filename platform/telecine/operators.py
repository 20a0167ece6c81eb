"""One Airflow operator for every component and every runner.

Parsing a DAG only checks names; looking up, starting and waiting happen in ``execute``. Success of a task means
that its commit record exists.
"""

import contextlib
import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, ParamValidationError

from telecine import config, settings, slugs
from telecine.assets import FromAsset
from telecine.component import Component
from telecine.errors import InputError, RetryLater, TelecineError
from telecine.launch import Launch
from telecine.redaction import mask
from telecine.runners import container, process
from telecine.settings import Settings
from telecine.work import runs

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context, XComArg

RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=5), "retry_exponential_backoff": 2.0}
RECIPE = "recipe"
RUNNERS: dict[str, Callable[[Launch], process.Child]] = {"process": process.start, "container": container.start}


def params_for(*components: Component) -> dict[str, Param]:
    """Airflow Params for every input that is a value, one section of the trigger form a component.

    Artifacts are what a DAG wires, so they have no Param. A component with recipes has one more, the recipe's name.
    """
    params = {}
    for found in components:
        if names := list(found.recipes):
            what = "Values to begin with; what is given beside it wins, except a default that the form fills in."
            params[param_name(found, RECIPE)] = Param(
                "", section=found.name, title=RECIPE, description=what, type="string", enum=["", *names]
            )
        for field in dataclasses.fields(found.inputs):
            if config.is_artifact(found.inputs, field.name):
                continue
            schema = config.json_schema(found.inputs, field.name)
            title = field.name.replace("_", " ")
            params[param_name(found, field.name)] = Param(_default(field), section=found.name, title=title, **schema)
    return params


def _default(field: "dataclasses.Field[Any]") -> Any:
    """As JSON has it."""
    return list(field.default) if isinstance(field.default, tuple) else field.default


def param_name(component: Component, field: str) -> str:
    """Name of a component's input among a DAG's Params: ``train_num_steps`` for ``pretrain.train``'s ``num_steps``."""
    return f"{component.name.rpartition('.')[2]}_{field}"


def check_conf(dag: "DAG", conf: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` for a name that no Param has (Airflow ignores it), a value that its Param refuses, or
    values that a task will refuse together.

    Args:
        conf: what somebody wants to start the DAG with.
    """
    params = dag.params
    for name, value in conf.items():
        if name not in params:
            near = difflib.get_close_matches(name, params, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "the trigger form lists them"
            raise InputError(f"the DAG has no Param {name!r}; {hint}")
        try:
            params.get_param(name).resolve(value)
        except ParamValidationError as error:
            raise InputError(f"Param {name}: {str(error).partition(chr(10))[0]}, got {value!r}") from None
    for task in dag.tasks:
        if isinstance(task, ComponentOperator):
            task.check({**params.dump(), **conf}, conf)


class ComponentOperator(BaseOperator):
    """Run one component, or point to the commit that already stands.

    Args:
        component: what to run.
        inputs: values that the DAG decides: constants, templates, other tasks' outputs, assets of other DAGs
            (:class:`telecine.assets.FromAsset`). Every other input is taken from the DAG's Params under
            :func:`param_name`, where there is one. An asset among the ``outlets`` gets the outputs with its event.
        role: suffix of the task id where a component appears twice in a DAG.
        unless: name of a Param; the task is skipped when it is set.
        only_if: Jinja expression such as ``params.rounds >= 2``; the task is skipped unless it holds.

    Raises:
        InputError: while the DAG is parsed, for an input that the component does not have.
    """

    template_fields: Sequence[str] = ("inputs", "only_if")
    ui_color = "#e8eefc"

    def __init__(
        self,
        *,
        component: Component,
        inputs: Mapping[str, Any] | None = None,
        role: str = "",
        unless: str = "",
        only_if: str = "",
        **kwargs: Any,
    ) -> None:
        task_id = f"{component.name}-{role}" if role else component.name
        for name in inputs or {}:
            config.check_name(component.inputs, name, owner=f"task {task_id}")
        inlets = [value.asset for value in (inputs or {}).values() if isinstance(value, FromAsset)]
        defaults = {**RETRIES, "pool": component.resources.pool, "inlets": inlets}
        super().__init__(task_id=task_id, multiple_outputs=True, **{**defaults, **kwargs})
        self.component = component
        self.inputs = dict(inputs or {})
        self.unless = unless
        self.condition = only_if
        self.only_if = f"{{{{ {only_if} }}}}" if only_if else ""
        self._child: process.Child | None = None

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
            run = run_of(context, here)
        except InputError as error:
            raise AirflowFailException(mask(str(error))) from None
        with self._refusals(run, here):
            return self._leave(context, self._met(context, run, here))

    def resume(self, context: "Context", event: dict[str, Any]) -> dict[str, Any]:
        """Come back when a job of the cluster has ended; returns the outputs."""
        from telecine import deferred

        for line in deferred.said(event):
            self.log.info(line)
        return self._leave(context, deferred.settle(event))

    @contextlib.contextmanager
    def _refusals(self, run: str, here: Settings) -> Iterator[None]:
        """Fail for good where an input or a credential is wrong, and record why, unless that is refused as well."""
        try:
            yield
        except InputError as error:
            try:
                self._point(run, here, "failed", "refused", error=str(error))
            except (TelecineError, OSError) as second:
                self.log.warning("event=pointer_failed error=%r", mask(str(second)))
            raise AirflowFailException(mask(str(error))) from None

    def _met(self, context: "Context", run: str, here: Settings) -> dict[str, Any]:
        """The outputs of the work that this task meets, done now unless its commit stands."""
        reason = self._reason_to_skip(context)
        if reason:
            self._point(run, here, "skipped", reason)
            raise AirflowSkipException(f"{self.component.name} has nothing to do: {reason}")
        check_conf(context["dag"], context["dag_run"].conf or {})
        inputs = self.component.parse(self._values(context))
        key, outputs = self._reuse(inputs, run, here)
        if outputs is not None:
            return outputs
        return self._start(
            Launch(
                component=self.component,
                inputs=inputs,
                run=run,
                task=self.task_id,
                key=key,
                settings=here,
                attempt=context["ti"].try_number,
            )
        )

    def _leave(self, context: "Context", outputs: dict[str, Any]) -> dict[str, Any]:
        for asset in self.outlets:
            context["outlet_events"][asset].extra = dict(outputs)
        return outputs

    def _reason_to_skip(self, context: "Context") -> str:
        if self.unless and context["params"].get(self.unless):
            return f"{self.unless} is set"
        return f"{self.condition} does not hold" if self.only_if == "False" else ""

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
            error=mask(error) if error else None,
            exit_code=InputError.exit_code if error else 0,
        )
        runs.point(Store(here.store_uri), run, pointer)

    def check(self, params: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
        """Raise :class:`InputError` for values of Params that the component refuses together.

        Files that the DAG gives it do not matter for that. Where the DAG gives it other values, too, nothing is said:
        they may not be known before the task runs.
        """
        if all(config.is_artifact(self.component.inputs, name) for name in self.inputs):
            self.component.parse(self._from_params(params, conf) | dict.fromkeys(self.inputs, "by the DAG"))

    def _values(self, context: "Context") -> dict[str, Any]:
        given = {name: v.resolve(context) if isinstance(v, FromAsset) else v for name, v in self.inputs.items()}
        return self._from_params(context["params"], context["dag_run"].conf or {}) | given

    def _from_params(self, params: Mapping[str, Any], conf: Mapping[str, Any]) -> dict[str, Any]:
        """Values by input, from a run's Params and the recipe that they name; ``conf`` is what a person gave."""
        names = {field.name: param_name(self.component, field.name) for field in self._fields()}
        values = {field: params[param] for field, param in names.items() if param in params}
        return values | self._from_recipe(params, conf, values)

    def _from_recipe(
        self, params: Mapping[str, Any], conf: Mapping[str, Any], values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the chosen recipe says and the person did not; ``values`` are those of the Params, by input."""
        chosen = params.get(param_name(self.component, RECIPE))
        if not chosen:
            return {}
        said = {name for name in values if param_name(self.component, name) in conf}
        if said == set(values):
            # Airflow's trigger form sends every Param, so that one at its default says nothing about what is wanted.
            said -= {field.name for field in self._fields() if values.get(field.name) == _default(field)}
        return {name: value for name, value in self.component.recipe(chosen).items() if name not in said}

    def _fields(self) -> tuple["dataclasses.Field[Any]", ...]:
        return dataclasses.fields(self.component.inputs)

    def _reuse(self, inputs: Any, run: str, here: Settings) -> tuple[str, dict[str, Any] | None]:
        """The work's content key, and its outputs where it is done."""
        from telecine.execution import Call, reuse

        where, result = reuse(Call(component=self.component, inputs=inputs, run=run, task=self.task_id, settings=here))
        if result is not None:
            self.log.info("event=reused component=%s reason=%r", self.component.name, result.reason)
        return where.key, result.outputs if result else None

    def _start(self, launch: Launch) -> dict[str, Any]:
        """Do the work with the deployment's runner."""
        if launch.settings.runner == "cluster":
            self._hand_over(launch)
        return self._run_child(launch)

    def _hand_over(self, launch: Launch) -> NoReturn:
        """Submit to the cluster, and free this worker until the job has ended; see :meth:`resume`."""
        from telecine import deferred

        try:
            trigger, line = deferred.begin(launch)
        except RetryLater as error:
            raise AirflowException(mask(str(error))) from None
        self.log.info(line)
        self.defer(trigger=trigger, method_name="resume")

    def _run_child(self, launch: Launch) -> dict[str, Any]:
        """Run to the end as a child of this task, each line into the task's log."""
        try:
            self._child = RUNNERS[launch.settings.runner](launch)
        except RetryLater as error:
            raise AirflowException(mask(str(error))) from None
        assert self._child.stdout is not None
        try:
            for line in self._child.stdout:
                self.log.info(mask(line.rstrip()))
            code = self._child.wait()
        finally:
            self.on_kill()
        if code != 0:
            raise _failure(self.component.name, code, self._child.cause())
        return _committed(launch)

    def on_kill(self) -> None:
        """Ask the component to save when its task is stopped, and kill it when it does not end in time."""
        if self._child is not None:
            self._child.stop()


class CloseRun(BaseOperator):
    """End a run's MLflow parent, whatever its tasks did, with each task's decision and figures to compare runs by.

    A DAG appends it ``.as_teardown()``: it runs when all else is done, and says nothing about the DAG run's success.

    Args:
        per_round: a component that a loop runs once in each task group ``round_<k>``; its figures become the parent's
            series ``round/<output>`` over ``k``.
    """

    def __init__(self, *, task_id: str = "close_run", per_round: Component | None = None, **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **{**RETRIES, **kwargs})
        self.per_round = per_round

    def execute(self, context: "Context") -> None:
        """Close the parent as finished if every component met a commit, else as failed."""
        from telecine import tracking
        from telecine.storage import Store

        here = settings.from_environment()
        run = run_of(context, here)
        store = Store(here.store_uri)
        met = runs.pointers(store, run)
        done = {pointer.task for pointer in met if pointer.decision in runs.SETTLED}
        expected = {task.task_id for task in context["dag"].tasks if isinstance(task, ComponentOperator)}
        expected -= skipped_by_airflow(context)
        client = tracking.connect(here)
        parent = tracking.parent_run(client, here, store, run)
        tracker = tracking.RunTracker(client, parent, parent)
        tracker.tags({f"decision.{p.task}": f"{p.decision} {p.mlflow_run_id or ''}".strip() for p in met})
        for pointer in met:
            tracker.metrics(tracking.numbers(pointer.outputs or {}, prefix=f"{pointer.task}/"), step=0)
            step = self._round_of(pointer)
            if step is not None:
                tracker.metrics(tracking.numbers(pointer.outputs or {}, prefix="round/"), step=step)
            if pointer.decision in ("ran", "reused", "lost") and pointer.mlflow_run_id:
                tracking.finish(client, pointer.mlflow_run_id, pointer.outputs)
        tracker.complete()
        unfinished = expected - done
        tracking.close(client, parent, succeeded=not unfinished)
        self.log.info("event=closed run=%s unfinished=%s", run, sorted(unfinished))

    def _round_of(self, pointer: runs.Pointer) -> int | None:
        found = re.match(r"round_(\d+)\.", pointer.task)
        same = self.per_round is not None and pointer.component == self.per_round.name
        return int(found[1]) if found and same else None


class CollectGarbage(BaseOperator):
    """Do what ``telecine gc`` does, with the DAG's Params ``keep_days`` and ``dry_run``, and say it in the log.

    On a cluster finished jobs go as well that no controller there removes.
    """

    def __init__(self, *, task_id: str = "collect_garbage", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, **{"pool": "telecine_light", **RETRIES, **kwargs})

    def execute(self, context: "Context") -> dict[str, int]:
        """Remove what nothing needs; returns how many folders and bytes that was."""
        from telecine.storage import Store
        from telecine.work import garbage

        params = context["params"]
        here = settings.from_environment()
        store = Store(here.store_uri)
        report = garbage.collect(store, keep_days=params["keep_days"], dry_run=params["dry_run"])
        for line in garbage.render(report).splitlines():
            self.log.info(line)
        if here.runner == "cluster":  # last, because a cluster that is away fails the task
            from telecine import deferred

            for name in deferred.sweep(dry_run=params["dry_run"]):
                self.log.info("event=swept object=%r dry_run=%s", name, params["dry_run"])
        return {"folders": len(report["removed"]), "bytes": report["bytes"]}


def skipped_by_airflow(context: "Context") -> set[str]:
    """Tasks of this DAG run that Airflow skipped, because what they follow was skipped; they leave no pointer."""
    dag_run = context["dag_run"]
    states = context["ti"].get_task_states(dag_id=dag_run.dag_id, run_ids=[dag_run.run_id])
    return {task for task, state in states.get(dag_run.run_id, {}).items() if state == "skipped"}


def run_of(context: "Context", here: Settings) -> str:
    """The slug of this DAG run, registered with where it came from.

    Whoever starts a DAG run may name its slug in TELECINE_RUN: going on with an interrupted run makes a new Airflow
    run id, and must not make a new run.
    """
    from telecine.execution import origin_record

    dag_run = context["dag_run"]
    run = slugs.check_slug(os.environ.get("TELECINE_RUN") or slugs.slug(dag_run.dag_id, dag_run.run_id))
    origin_record(here, run, {"dag_id": dag_run.dag_id, "airflow_run_id": dag_run.run_id})
    return run


def _committed(launch: Launch) -> dict[str, Any]:
    """Outputs by the commit record: an exit code alone is no success."""
    from telecine.storage import Store
    from telecine.work import commits

    store = Store(launch.settings.store_uri)
    record = commits.read(store, f"{launch.prefix}/commit.json")
    if record is None:
        raise AirflowException(f"{launch.component.name}: it ended well, but there is no commit at {launch.key}")
    return commits.resolved_outputs(store, record)


def _failure(name: str, code: int, cause: str) -> AirflowException:
    if code == InputError.exit_code:
        return AirflowFailException(f"{name}: inputs or credentials are wrong (exit 78); its last line says which")
    if code in container.CODES_UNRUNNABLE:
        return AirflowFailException(f"{name}: {cause}; the same image ends the same: make images")
    return AirflowException(f"{name}: {cause}; a retry goes on from its last checkpoint or item")
