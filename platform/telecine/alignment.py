"""What a DAG that aligns a model needs beside components: the model it begins with, the questions to a person, and
the model it ends with.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from telecine import links, settings
from telecine.assets import CHECKPOINT, Triggering
from telecine.gate import ASK_AGAIN, answer_of
from telecine.operators import RETRIES, ComponentOperator, run_of
from telecine.work import runs

if TYPE_CHECKING:
    from airflow.sdk import Context

    from telecine.settings import Settings

ANSWERS = ("A", "B", "same")
SUBMIT, SKIP = "Submit", "Do not tune"
PICTURE = "pairs.png"
FIGURES = ("reward_reference", "reward", "win_rate", "win_rate_low", "win_rate_high")
"""What :class:`Outcome` reads of the comparison of each round with the base model."""


class BaseModel(BaseOperator):
    """Find the model to begin with; outputs ``model_uri``, in ``origin`` where it comes from, and ``num_rounds``.

    It is the Param ``model_uri``; where that is empty, the checkpoint whose event started the run; where there is none,
    the version of the Param ``model_name`` that has the alias ``candidate``.
    """

    def __init__(self, *, task_id: str = "base_model", **kwargs: Any) -> None:
        super().__init__(task_id=task_id, multiple_outputs=True, **{**RETRIES, **kwargs})

    def execute(self, context: "Context") -> dict[str, Any]:
        """Look; fails at once where there is no such model."""
        uri, origin = self._look(context)
        self.log.info("event=base_model origin=%r model_uri=%s", origin, uri)
        return {"model_uri": uri, "origin": origin, "num_rounds": context["params"]["rounds"]}

    def found(self, name: str) -> Any:
        """An output as an input of another task."""
        return self.output[name]  # type: ignore[index]

    def _look(self, context: "Context") -> tuple[str, str]:
        given = context["params"].get("model_uri")
        if given:
            return str(given), "Param model_uri"
        started = Triggering(CHECKPOINT, "model_uri", "model_uri").started(context)
        if started:
            return str(started), "asset event"
        name = str(context["params"]["model_name"])
        return _candidate(name, settings.from_environment()), f"candidate of {name}"


def _candidate(name: str, here: "Settings") -> str:
    """URI of the weights that the alias points to: the work that made them, by the version's tags."""
    from mlflow.exceptions import MlflowException

    from telecine import tracking
    from telecine.storage import Store
    from telecine.work import commits

    try:
        version = tracking.connect(here).get_model_version_by_alias(name, "candidate")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise AirflowFailException(
            f"align_model: {name} has no version with the alias candidate; run the flywheel or give model_uri"
        ) from None
    store = Store(here.store_uri)
    work = f"work/{version.tags.get('telecine.component')}/{version.tags.get('telecine.key')}"
    record = commits.read(store, f"{work}/commit.json")
    outputs = commits.resolved_outputs(store, record) if record else {}
    return str(outputs.get("model_uri") or version.source)


class PairQuestions(HITLOperator):
    """Ask a person which film of each pair is better, without holding a worker; outputs ``answers`` and ``by``.

    The question stands on Airflow's page under *Required Actions* as a form with one field a pair. With the oracle as
    labeller nobody is asked and ``answers`` is empty. Without an answer in time the task is skipped, and with it
    whatever needs the answers. A timeout of zero asks nobody. Answers that could not be learned from, because their
    films are fewer than a batch, are not asked for: the task fails. ``airflow dags test`` has no scheduler to watch
    the time: there a question waits until it is answered.

    Args:
        collect: the task whose pairs are asked about.
        labeller_param: name of the Param that is ``oracle`` or ``human``.
        timeout_param: name of the Param that holds how long to wait, in seconds.
        batch_param: name of the Param that holds how many films a step of the tuning takes.
    """

    template_fields = ("subject", "body", "films_uri", "preview_uri")

    def __init__(
        self,
        *,
        collect: ComponentOperator,
        labeller_param: str,
        timeout_param: str,
        batch_param: str,
        **kwargs: Any,
    ) -> None:
        arguments = {"subject": "Which film is better?", "options": [SUBMIT, SKIP], "defaults": SKIP, **ASK_AGAIN}
        super().__init__(**{**arguments, "multiple_outputs": True, **kwargs})
        self.films_uri, self.preview_uri = collect.out("films_uri"), collect.out("preview_uri")
        self.collect_id = collect.task_id
        self.labeller_param, self.timeout_param, self.batch_param = labeller_param, timeout_param, batch_param

    def execute(self, context: "Context") -> Any:
        """Ask, and give the worker back; or say at once why nobody is asked."""
        if context["params"][self.labeller_param] != "human":
            return {"answers": [], "by": ""}
        timeout_s = float(context["params"][self.timeout_param])
        pairs = self._pairs()
        if not pairs or timeout_s == 0:
            self._skip(context, "there are no pairs to ask about" if not pairs else f"{self.timeout_param} is 0")
        batch_size = context["params"][self.batch_param]
        if batch_size > 2 * len(pairs):
            raise AirflowFailException(
                f"{self.task_id}: {self.batch_param} must be at most the {2 * len(pairs)} films of {len(pairs)} pairs, "
                f"got {batch_size}; lower it or collect more pairs"
            )
        self.response_timeout = timedelta(seconds=timeout_s)
        for name, pair in pairs.items():
            self.params[name] = Param("same", enum=list(ANSWERS), type="string", description=str(pair["prompt"]))
        linked = self._links(context, [PICTURE, *map(_film, pairs)], timeout_s)
        self.body = _body(pairs, linked, str(self.preview_uri))
        return super().execute(context)

    def execute_complete(self, context: "Context", event: dict[str, Any]) -> Any:
        """Take the answers in the order of the pairs, or skip where there are none."""
        if "error" in event:
            self.process_trigger_event_error(event)
        answer = answer_of(event)
        if not answer["by"]:
            self._skip(context, f"nobody answered within {context['params'][self.timeout_param]} s")
        if answer["option"] != SUBMIT:
            self._skip(context, f"{answer['by']} chose not to tune")
        given = event.get("params_input") or {}
        answers = [given.get(name, "same") for name in self._pairs()]
        unknown = sorted({str(value) for value in answers if value not in ANSWERS})
        if unknown:
            raise AirflowFailException(
                f"{self.task_id}: answers must be one of {', '.join(ANSWERS)}, got {', '.join(unknown)}; "
                "clear the task to be asked again"
            )
        self.log.info("event=answered by=%s answers=%s", answer["by"], answers)
        return {"answers": answers, "by": answer["by"]}

    def given(self, name: str) -> Any:
        """``answers`` or ``by`` as an input of another task."""
        return self.output[name]  # type: ignore[index]

    def _links(self, context: "Context", names: list[str], timeout_s: float) -> dict[str, str]:
        here = settings.from_environment()
        page = links.artifacts(here, run_of(context, here), self.collect_id)
        return {name: links.file(page, "pairs", name, str(self.preview_uri), seconds=timeout_s) for name in names}

    def _pairs(self) -> dict[str, dict[str, str]]:
        """Pairs by the name of their field in the form."""
        from telecine.storage import Store

        store = Store(settings.from_environment().store_uri)
        path = store.path_of(str(self.films_uri))
        if path is None:
            raise AirflowFailException(f"{self.task_id}: {self.films_uri} is not in the store {store.uri_of('')}")
        pairs = json.loads(store.read(f"{path}/pairs.json"))
        return {f"pair_{number:02d}": pair for number, pair in enumerate(pairs, 1)}

    def _skip(self, context: "Context", reason: str) -> None:
        from telecine.storage import Store

        here = settings.from_environment()
        pointer = runs.Pointer(
            task=self.task_id, component="person", key="", decision="skipped", reason=reason, inputs={}
        )
        runs.point(Store(here.store_uri), run_of(context, here), pointer)
        raise AirflowSkipException(f"no labels: {reason}; the model stays as it is")


def _body(pairs: dict[str, dict[str, str]], linked: dict[str, str], preview_uri: str) -> str:
    """The request in Markdown: how to see the films, and the prompt of each pair."""
    where = f"The films lie in `{preview_uri}`; a signed link into it lives at most {links.LINK_S // 60} minutes."
    lines = [
        "Choose the film of each pair that shows its caption better. A is left, B is right.",
        f"All pairs in one picture: {linked[PICTURE]}",
        *(["", where] if "X-Amz-Signature" in linked[PICTURE] else []),
        "",
        "| pair | caption | film |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {links.plain(pair['prompt'])} | {linked[_film(name)]} |" for name, pair in pairs.items()]
    return "\n".join([*lines, "", f"*{SKIP}*, or silence, leaves the model as it is."])


def _film(name: str) -> str:
    return f"{name.replace('_', '-')}.mp4"


class Outcome(BaseOperator):
    """Say which model a loop ends with, after how many rounds, and why.

    It is the model of the round with the highest reward if it beats the base model: if the interval of its win rate
    lies above one half. Else it is the base model. Outputs ``model_uri``, ``is_better`` where it is not the base model,
    ``tuning_uri`` then, ``num_rounds``, ``why`` and ``rewards``: the base model's and then each round's.

    Args:
        base: the task that found the base model.
        tunes, compares, questions: the tasks of each round, in order.
    """

    def __init__(
        self,
        *,
        base: BaseModel,
        tunes: Sequence[ComponentOperator],
        compares: Sequence[ComponentOperator],
        questions: Sequence[PairQuestions],
        task_id: str = "outcome",
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, multiple_outputs=True, trigger_rule="none_failed", **kwargs)
        self.base_id = base.task_id
        self.tune_ids, self.compare_ids = [t.task_id for t in tunes], [c.task_id for c in compares]
        self.question_ids = {question.task_id for question in questions}
        self.set_upstream([base, *compares])

    def execute(self, context: "Context") -> dict[str, Any]:
        """Collect what the rounds left."""
        found = [context["ti"].xcom_pull(task_ids=task, key="model_uri") for task in [self.base_id, *self.tune_ids]]
        models = [uri for uri in found if uri]
        rounds = [
            {name: context["ti"].xcom_pull(task_ids=task, key=name) for name in FIGURES}
            for task in self.compare_ids[: len(models) - 1]
        ]
        kept, verdict = judged(rounds)
        result = {
            "model_uri": models[kept],
            "is_better": kept > 0,
            "tuning_uri": context["ti"].xcom_pull(task_ids=self.tune_ids[kept - 1], key="tuning_uri") if kept else "",
            "num_rounds": len(models) - 1,
            "why": "; ".join([self._reached(context, len(models) - 1), *verdict]),
            "rewards": [rounds[0]["reward_reference"], *(figures["reward"] for figures in rounds)] if rounds else [],
        }
        self.log.info(
            "event=outcome num_rounds=%d why=%r rewards=%s", *(result[n] for n in ("num_rounds", "why", "rewards"))
        )
        return result

    def found(self, name: str) -> Any:
        """An output as an input of another task."""
        return self.output[name]  # type: ignore[index]

    def _reached(self, context: "Context", num_rounds: int) -> str:
        from telecine.storage import Store

        here = settings.from_environment()
        met = runs.pointers(Store(here.store_uri), run_of(context, here))
        silent = [p.reason for p in met if p.task in self.question_ids and p.decision == "skipped"]
        asked = int(context["params"]["rounds"])
        if num_rounds >= asked or not silent:
            return f"{num_rounds} of {asked} rounds were tuned"
        return silent[-1] if num_rounds else f"{silent[-1]}; the base model stays"


def judged(rounds: Sequence[Mapping[str, float]]) -> tuple[int, list[str]]:
    """The round whose model is kept, 0 for the base model, and the sentences that say so.

    Args:
        rounds: :data:`FIGURES` of each round's comparison with the base model.
    """
    if not rounds:
        return 0, []
    best = max(range(1, len(rounds) + 1), key=lambda number: rounds[number - 1]["reward"])
    rate, low, high = (rounds[best - 1][name] for name in ("win_rate", "win_rate_low", "win_rate_high"))
    verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "not better"
    kept = best if verdict == "better" else 0
    said = f"round {best}, the best by reward, is {verdict}: win rate {rate:.2f} [{low:.2f}, {high:.2f}] over the base"
    return kept, [said, f"the model of round {kept} is kept" if kept else "the base model stays"]
