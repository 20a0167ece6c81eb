"""align.label: the oracle's rewards and a person's answers."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from telecine.errors import InputError
from telecine_components.align import films
from telecine_components.align.label.run import oracle_answers
from telecine_components.media.shards import read_array
from telecine_models.rewards.caption import caption_reward


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def labels_of(outputs: Any) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in pq.read_table(local(outputs.labels_uri)).to_pylist()}


def test_the_oracle_rewards_every_film_for_what_it_shows(first_round: Any) -> None:
    labels = labels_of(first_round.labels)
    rows = films.read_rows(local(first_round.films.films_uri), owner="test")
    assert len(labels) == len(rows) == first_round.labels.num_labels
    for row in rows:
        shard = first_round.trained.deployment.home / "store" / row["shard"]
        expected = caption_reward(row["caption"], read_array(shard, row["offset"], row["length"]))
        assert {name: labels[row["sample_id"]][name] for name in expected} == expected
        assert labels[row["sample_id"]]["labelled_by"] == "oracle"
    mean = sum(row["reward"] for row in labels.values()) / len(labels)
    assert first_round.labels.label_reward == pytest.approx(mean)


def test_the_oracle_prefers_the_better_film_and_calls_small_differences_the_same() -> None:
    pairs = [films.Pair(prompt="p", a="one", b=other) for other in ("less", "more", "near")]
    rewards = {"one": 0.5, "less": 0.25, "more": 0.875, "near": 0.515625}
    assert oracle_answers(pairs, rewards, 0.015625) == ["A", "B", "same"]
    assert oracle_answers(pairs, rewards | {"near": 0.5}, 0.0) == ["A", "B", "same"], "a margin of 0 leaves real ties"


def test_a_person_s_answers_become_rewards_with_their_name(first_round: Any) -> None:
    outputs = first_round.trained.run(
        "align.label",
        films_uri=first_round.films.films_uri,
        labeller="human",
        answers=["A", "B", "same", "A"],
        answered_by="maria",
    )
    labels = labels_of(outputs)
    pairs = films.read_pairs(local(first_round.films.films_uri))
    given = [(labels[pair.a]["reward"], labels[pair.b]["reward"]) for pair in pairs]
    assert given == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    assert len(labels) == 2 * len(pairs), "what nobody judged has no label"
    assert [(labels[pair.a]["pair"], labels[pair.b]["pair"]) for pair in pairs] == [(n, n) for n in (1, 2, 3, 4)]
    assert {row["pair"] for row in labels_of(first_round.labels).values()} == {None}
    assert {(row["labeller"], row["labelled_by"], row["motion"]) for row in labels.values()} == {
        ("human", "maria", None)
    }
    preferences = json.loads(local(outputs.preferences_uri).read_text())
    assert [pair["answer"] for pair in preferences["pairs"]] == ["A", "B", "same", "A"]
    assert (preferences["labelled_by"], outputs.num_ties) == ("maria", 1)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["A"], "one of A, B, same for each of the 4 pairs, got 1; answer every pair"),
        ([], "for each of the 4 pairs, got 0"),
        (["A", "B", "C", "A"], "answers must be one of .*, got 'C'"),
    ],
)
def test_answers_that_do_not_fit_the_pairs_are_refused(first_round: Any, answers: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        first_round.trained.run("align.label", films_uri=first_round.films.films_uri, labeller="human", answers=answers)


def test_the_oracle_refuses_captions_that_are_not_backlot_s(first_round: Any, collect_inputs: dict[str, Any]) -> None:
    uri = first_round.trained.outputs.model_uri
    values = collect_inputs | {"prompts": ["a dog on a beach"], "num_seeds": 2, "num_steps": 1}
    foreign = first_round.trained.run("align.collect", model_uri=uri, reference_uri=uri, **values)
    with pytest.raises(InputError, match="the oracle reads Backlot only, set labeller to human"):
        first_round.trained.run("align.label", films_uri=foreign.films_uri)


def test_a_folder_without_films_is_refused(first_round: Any) -> None:
    with pytest.raises(InputError, match="films_uri must be a folder that align.collect wrote"):
        first_round.trained.run("align.label", films_uri=str(first_round.trained.dataset))
