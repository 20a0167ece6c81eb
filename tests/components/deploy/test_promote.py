"""deploy.promote against a real MLflow: the alias moves for an approval and for nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import tracking
from telecine.errors import InputError

AT = "2026-11-22T10:00:00+00:00"


@pytest.fixture(scope="module")
def client(trained: Any) -> Any:
    return tracking.connect(trained.deployment)


@pytest.fixture
def model(client: Any, request: pytest.FixtureRequest) -> str:
    """A registered model of three versions, none of them champion."""
    name = request.node.name.replace("[", "-").rstrip("]")
    client.create_registered_model(name)
    for number in range(3):
        client.create_model_version(name, f"file:///nowhere/{number}")
    return name


@pytest.fixture
def decide(trained: Any, model: str) -> Callable[..., dict[str, Any]]:
    """Decide about a version; returns promotion.json."""

    def decided(version: str, decision: str, run: str, by: str = "ada", **more: Any) -> dict[str, Any]:
        values = {"model_name": model, "model_version": version, "decision": decision, "decided_by": by}
        outputs = trained.run("deploy.promote", run=run, decided_at=AT, **values, **more)
        document = json.loads(Path(outputs.promotion_uri.removeprefix("file://")).read_text())
        assert (outputs.champion_version, outputs.previous_version) == (document["champion"], document["previous"])
        return document

    return decided


def champion(client: Any, model: str) -> str:
    return str(client.get_registered_model(model).aliases.get("champion", ""))


def test_an_approval_moves_the_alias_and_records_who_when_and_the_way_back(
    client: Any, model: str, decide: Callable[..., dict[str, Any]]
) -> None:
    decide("1", "approved", "promote-a1")
    document = decide("2", "approved", "promote-a2", by="grace")
    assert champion(client, model) == "2"
    assert document == {
        "model_name": model,
        "model_version": "2",
        "champion": "2",
        "decision": "approved",
        "by": "grace",
        "at": AT,
        "previous": "1",
        "run": "promote-a2",
    }
    tags = client.get_model_version(model, "2").tags
    facts = {name: tags[f"telecine.promotion_{name}"] for name in ("decision", "by", "at", "previous", "run")}
    assert facts == {name: document[name] for name in facts}
    decide(document["previous"], "approved", "promote-a3")
    assert champion(client, model) == "1", "promoting the previous one is the rollback"


@pytest.mark.parametrize(("decision", "by"), [("refused", "ada"), ("unanswered", "")])
def test_a_refusal_is_recorded_and_changes_nothing(
    client: Any, model: str, decide: Callable[..., dict[str, Any]], decision: str, by: str
) -> None:
    decide("1", "approved", f"promote-{decision}-1")
    document = decide("2", decision, f"promote-{decision}-2", by=by)
    assert champion(client, model) == document["champion"] == "1"
    tags = client.get_model_version(model, "2").tags
    assert (tags["telecine.promotion_decision"], tags["telecine.promotion_by"]) == (decision, by)


def test_an_attempt_after_one_that_died_still_knows_the_champion_before(
    client: Any, model: str, decide: Callable[..., dict[str, Any]]
) -> None:
    decide("1", "approved", "promote-r1")
    decide("2", "approved", "promote-r2")
    again = decide("2", "approved", "promote-r2", force=True)
    assert (again["previous"], champion(client, model)) == ("1", "2")


def test_a_refusal_after_an_approval_tells_the_champion_that_is(
    client: Any, model: str, decide: Callable[..., dict[str, Any]]
) -> None:
    decide("1", "approved", "promote-c1")
    decide("2", "approved", "promote-c2")
    document = decide("2", "refused", "promote-c2")
    assert document["champion"] == champion(client, model) == "2"
    assert document["previous"] == "1", "the way back stays known"


def test_an_old_answer_cannot_undo_a_newer_promotion(
    client: Any, model: str, decide: Callable[..., dict[str, Any]]
) -> None:
    decide("1", "approved", "promote-o1", asked_champion="")
    decide("3", "approved", "promote-o3", asked_champion="1")
    with pytest.raises(InputError, match=r"beside champion 1, but the champion is 3 by now; run promote_model again"):
        decide("2", "approved", "promote-o2", asked_champion="1")
    with pytest.raises(InputError, match="beside champion none, but the champion is 3"):
        decide("2", "approved", "promote-o4", asked_champion="")
    assert champion(client, model) == "3"
    assert "telecine.promotion_decision" not in client.get_model_version(model, "2").tags
    again = decide("3", "approved", "promote-o3", asked_champion="1", force=True)
    assert (again["champion"], again["previous"]) == ("3", "1"), "an attempt after one that died is no old answer"


def test_the_default_decision_is_no(client: Any, model: str, trained: Any) -> None:
    trained.run("deploy.promote", run="promote-default", model_name=model, model_version="1")
    assert champion(client, model) == ""


@pytest.mark.parametrize(
    ("version", "by", "complaint"),
    [
        ("", "ada", "model_version must be a number such as 3, got ''"),
        ("1", "", "decided_by must name who approved, got ''"),
        ("9", "ada", "MLflow has no version 9"),
    ],
)
def test_an_approval_of_nothing_or_by_nobody_is_refused(
    client: Any, model: str, decide: Callable[..., dict[str, Any]], version: str, by: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        decide(version, "approved", f"promote-bad-{version or 'none'}-{by or 'nobody'}", by=by)
    assert champion(client, model) == ""
