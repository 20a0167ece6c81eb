"""align.label: the oracle reads every film; a person's answers give the two films of a pair 1 and 0, or 0.5 each."""

import dataclasses
import json
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError, RetryLater
from telecine_components.align import films
from telecine_components.align.films import Pair
from telecine_components.align.label.spec import Inputs, Outputs
from telecine_components.media.shards import read_array
from telecine_models.rewards.caption import PARTS, caption_reward

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("reward", pa.float64()),
        pa.field("pair", pa.int64()),  # whose other film the reward is relative to; null where films are judged alone
        *(pa.field(part, pa.float64()) for part in PARTS),  # null where a person judged
        pa.field("labeller", pa.string()),
        pa.field("labelled_by", pa.string()),
    ]
)
_POINTS = {"A": (1.0, 0.0), "B": (0.0, 1.0), "same": (0.5, 0.5)}

Rows = list[dict[str, Any]]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Label; see :class:`Inputs`."""
    folder = ctx.fetch(inputs.films_uri)
    rows, pairs = films.read_rows(folder, owner="align.label"), films.read_pairs(folder)
    if inputs.labeller == "human":
        answers = human_answers(inputs, pairs)
        labels = _human_labels(rows, pairs, answers, inputs.answered_by)
    else:
        labels = _oracle_labels(rows, ctx)
        answers = oracle_answers(pairs, {row["sample_id"]: row["reward"] for row in labels}, inputs.tie_margin)
    pq.write_table(pa.Table.from_pylist(labels, schema=SCHEMA), ctx.dir / "labels.parquet")
    _write_preferences(pairs, answers, inputs, ctx)
    made_by_model = {row["sample_id"] for row in rows if row["maker"] == "model"}
    reward = float(np.mean([row["reward"] for row in labels if row["sample_id"] in made_by_model]))
    log.info("event=labelled labeller=%s films=%d reward=%.4f", inputs.labeller, len(labels), reward)
    return Outputs(
        labels_uri=Artifact("labels.parquet"),
        preferences_uri=Artifact("preferences.json"),
        num_labels=len(labels),
        label_reward=reward,
        num_ties=answers.count("same"),
    )


def oracle_answers(pairs: list[Pair], reward_of: dict[str, float], tie_margin: float) -> list[str]:
    """The better film of each pair by reward; ``same`` within the margin."""
    gains = [reward_of[pair.a] - reward_of[pair.b] for pair in pairs]
    return ["same" if abs(gain) <= tie_margin else "A" if gain > 0 else "B" for gain in gains]


def human_answers(inputs: Inputs, pairs: list[Pair]) -> list[str]:
    """One answer a pair; raises :class:`InputError` where their numbers differ."""
    if not pairs or len(inputs.answers) != len(pairs):
        raise InputError(
            f"align.label: answers must hold one of A, B, same for each of the {len(pairs)} pairs, "
            f"got {len(inputs.answers)}; answer every pair"
        )
    return list(inputs.answers)


def _oracle_labels(rows: Rows, ctx: Context) -> Rows:
    labels = []
    for done, row in enumerate(rows):
        if ctx.stop_requested:
            raise RetryLater(f"align.label: stopped after {done} of {len(rows)} films; call again")
        frames = read_array(ctx.path(row["shard"]), row["offset"], row["length"])
        try:
            parts = caption_reward(row["caption"], frames)
        except ValueError as error:
            raise InputError(f"align.label: {error}; the oracle reads Backlot only, set labeller to human") from error
        labels.append({"sample_id": row["sample_id"], "caption": row["caption"], **parts} | _signed("oracle", "oracle"))
        ctx.progress(done + 1, len(rows))
    return labels


def _human_labels(rows: Rows, pairs: list[Pair], answers: list[str], who: str) -> Rows:
    captions = {row["sample_id"]: row["caption"] for row in rows}
    judged = [
        {"sample_id": name, "caption": captions[name], "reward": points, "pair": number}
        for number, (pair, answer) in enumerate(zip(pairs, answers, strict=True), 1)
        for name, points in zip((pair.a, pair.b), _POINTS[answer], strict=True)
    ]
    return [label | dict.fromkeys(PARTS) | _signed("human", who) for label in judged]


def _signed(labeller: str, who: str) -> dict[str, str]:
    return {"labeller": labeller, "labelled_by": who}


def _write_preferences(pairs: list[Pair], answers: list[str], inputs: Inputs, ctx: Context) -> None:
    who = inputs.answered_by if inputs.labeller == "human" else "oracle"
    document = {
        "labeller": inputs.labeller,
        "labelled_by": who,
        "pairs": [dataclasses.asdict(pair) | {"answer": a} for pair, a in zip(pairs, answers, strict=True)],
    }
    path = ctx.dir / "preferences.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True))
    ctx.tracker.artifact(path)
