"""deploy.register: link the weights into the training run's artifacts, register them, say where they came from."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.deploy.register.registry import DIGEST_TAG, publish, register
from telecine_components.deploy.register.spec import Inputs, Outputs

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Register; see :class:`Inputs`."""
    for field in ("model_name", "alias"):
        if not _NAME.fullmatch(getattr(inputs, field)):
            raise InputError(
                f"deploy.register: {field} must be letters, digits, '.', '_' and '-', got {getattr(inputs, field)!r}"
            )
    folder = ctx.fetch(inputs.model_uri)
    producer = ctx.producer(inputs.model_uri)
    trained_in = str(producer.get("mlflow_run_id"))
    # Somebody with another MLflow over the same store may have trained it.
    train_run_id = trained_in if ctx.tracker.knows(trained_in) else ctx.tracker.run_id
    description = describe(json.loads(ctx.fetch(inputs.training_uri).read_text()))
    facts = lineage(inputs, ctx, folder, producer)
    version = register(
        ctx.tracker.client,
        name=inputs.model_name,
        alias=inputs.alias,
        source=publish(ctx.tracker.client, train_run_id, folder, inputs.model_uri, ctx.digest(folder)),
        run_id=train_run_id,
        tags={f"telecine.{name}": _tag(value) for name, value in facts.items()},
        description=description,
    )
    ctx.tracker.tags({"model.name": version.name, "model.version": version.version})
    document = {"model_name": version.name, "model_version": version.version, "alias": inputs.alias, **facts}
    (ctx.dir / "registration.json").write_text(
        json.dumps({**document, "train_run_id": train_run_id}, indent=1, sort_keys=True)
    )
    log.info(
        "event=registered name=%s version=%s created=%s alias=%s",
        version.name,
        version.version,
        version.created,
        inputs.alias,
    )
    return Outputs(
        registration_uri=Artifact("registration.json"), model_name=version.name, model_version=version.version
    )


def lineage(inputs: Inputs, ctx: Context, folder: Path, producer: dict[str, Any]) -> dict[str, Any]:
    """What the weights are and what they saw: digests, the address that made them, sources with licence and consent.

    Weights that went on from others saw what those saw. ``base_model`` names the first ones where no work of this
    store made them: what they saw is not known.
    """
    behind = trainings(ctx, producer)
    dataset = trained_on(inputs, ctx, behind)
    earlier = [_dataset_of(ctx, training) for training in behind[1:]]
    base = str(behind[-1]["inputs"].get("model_uri") or "") if behind else ""
    return {
        DIGEST_TAG.removeprefix("telecine."): ctx.digest(folder),
        "dataset_digest": ctx.digest(dataset),
        "component": producer.get("component", ""),
        "key": producer.get("key", ""),
        **({"base_model": base} if base else {}),
        **training_sources([path / "index.parquet" for path in (dataset, *earlier)]),
    }


def trainings(ctx: Context, producer: dict[str, Any]) -> list[dict[str, Any]]:
    """Commits of the trainings on datasets behind some weights, the last one first."""
    found = []
    while producer:
        if "dataset_uri" in producer["inputs"]:
            found.append(producer)
        producer = ctx.producer(str(producer["inputs"].get("model_uri", "")))
    return found


def trained_on(inputs: Inputs, ctx: Context, behind: Sequence[dict[str, Any]]) -> Path:
    """Folder of the dataset that the weights, or those that they were tuned from, were trained on last.

    For weights that no work of this store has trained, ``dataset_uri`` is taken at its word.

    Raises:
        InputError: ``dataset_uri`` is another dataset, what was read has changed, or nothing says what it was.
    """
    read = str(behind[0]["inputs"]["dataset_uri"]) if behind else ""
    uri = inputs.dataset_uri or read
    if not uri:
        raise InputError(
            f"deploy.register: no work of this store says what {inputs.model_uri} was trained on; give dataset_uri"
        )
    dataset = ctx.fetch(uri)
    if behind and not _was_read(ctx, behind[0], uri, dataset):
        raise InputError(
            f"deploy.register: dataset_uri must be what {inputs.model_uri} was trained on, {read} with the bytes that "
            f"it had then, got {uri}; leave it empty, or give a copy of those bytes"
        )
    return dataset


def _dataset_of(ctx: Context, training: dict[str, Any]) -> Path:
    """Folder of the dataset that an earlier training read; raises :class:`InputError` unless it is there as it was."""
    uri = str(training["inputs"]["dataset_uri"])
    dataset = ctx.fetch(uri)
    if not _was_read(ctx, training, uri, dataset):
        raise InputError(
            f"deploy.register: the weights went on from others, trained on {uri}, which is gone or has changed; "
            "its licences cannot be told, put it back"
        )
    return dataset


def _was_read(ctx: Context, training: dict[str, Any], uri: str, dataset: Path) -> bool:
    """By its bytes; in somebody else's bucket, whose bytes an address does not hold, by its name."""
    read = str(training["inputs"]["dataset_uri"])
    if read.startswith("s3://") and ctx.store.path_of(read) is None:
        return uri == read
    return dataset.exists() and ctx.digest(dataset) == training["address"]["inputs"]["dataset_uri"]["digest"]


def training_sources(indices: Iterable[Path]) -> dict[str, Any]:
    """Number of source files of the training samples, and samples by licence and by consent.

    A sample counts once, unless it was trained on under several licences or consents: then once under each.
    """
    columns = ["clip_id", "sample_id", "source_digest", "licence", "consent", "split"]
    rows = [row for index in indices for row in pq.read_table(index, columns=columns).to_pylist()]
    seen = [row for row in rows if row["split"] == "train"]

    def samples_by(name: str) -> dict[str, int]:
        each = {(row["clip_id"], row["sample_id"], row[name] or "unknown") for row in seen}
        return dict(sorted(Counter(value for _, _, value in each).items()))

    return {
        "num_sources": len({row["source_digest"] for row in seen}),
        "licences": samples_by("licence"),
        "consents": samples_by("consent"),
    }


def _tag(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {count}" for name, count in value.items())
    return str(value)


def describe(report: dict[str, Any]) -> str:
    """One or two sentences from a trainer's report; raises :class:`InputError` for what is none."""
    try:
        return _tuned(report) if "reward_of_films" in report else _trained(report)
    except (KeyError, TypeError):
        raise InputError(
            "deploy.register: training_uri must be training.json of pretrain.train or tuning.json of align.tune, "
            "got neither"
        ) from None


def _tuned(report: dict[str, Any]) -> str:
    size = f"Tuned by rewards on {len(report['films'])} films, {report['num_steps']} steps"
    return (
        f"{size}. Mean reward of the films {report['reward_of_films']:.4f}, weighted {report['reward_weighted']:.4f}."
    )


def _trained(training: dict[str, Any]) -> str:
    loss = training["held_out"]["loss"]
    others = f"untrained {loss['untrained']:.4f}, mean predictor {loss['mean_predictor']:.4f}"
    size = f"{training['num_parameters']:,} parameters, {training['num_steps']} steps"
    return f"{size}. Held-out loss {loss['trained']:.4f} ({others})."
