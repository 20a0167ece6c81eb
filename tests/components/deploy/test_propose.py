"""deploy.propose: which version is meant, and what is said of it."""

from pathlib import Path
from typing import Any

import pytest

from telecine import links, tracking
from telecine.errors import InputError
from telecine_components.deploy.propose.run import card, settled
from telecine_components.deploy.versions import Version

PAGE = "http://mlflow:5000"


def register(trained: Any, name: str) -> Any:
    outputs = trained.outputs
    uris = {"model_uri": outputs.model_uri, "training_uri": outputs.training_uri, "dataset_uri": str(trained.dataset)}
    return trained.run("deploy.register", run=f"register-{name}", model_name=name, **uris)


def test_the_card_names_the_version_and_shows_its_figures_and_rights(trained: Any) -> None:
    register(trained, "proposed")
    outputs = trained.run("deploy.propose", model_name="proposed", force=True)
    assert (outputs.model_version, outputs.champion_version) == ("1", "")
    assert outputs.model_source.startswith("file://")
    for words in ("version 1", f"{trained.outputs.eval_loss:.4f}", "no champion yet", "CC0-1.0: 12", "pretrain.train"):
        assert words in outputs.card, words
    assert Path(outputs.card_uri.removeprefix("file://")).read_text() == outputs.card


def test_a_version_may_be_named_by_its_number(trained: Any) -> None:
    register(trained, "numbered")
    assert trained.run("deploy.propose", model_name="numbered", model_version="1", alias="none").model_version == "1"


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"model_name": "never registered"}, "no version with the alias 'candidate' of 'never registered'"),
        ({"model_name": "refusing", "model_version": "7"}, "no version 7 of 'refusing'"),
        ({"model_name": "refusing", "model_version": "newest"}, "no version newest of 'refusing'"),
        ({"model_name": "refusing", "alias": "nobody"}, "no version with the alias 'nobody'"),
    ],
)
def test_what_the_registry_does_not_have_is_refused(trained: Any, inputs: dict[str, Any], complaint: str) -> None:
    register(trained, "refusing")
    with pytest.raises(InputError, match=complaint):
        trained.run("deploy.propose", **inputs)


def version(number: str, description: str = "", **tags: str) -> Version:
    return Version(name="m", version=number, source="file:///m", description=description, tags=tags)


def test_nobody_need_be_asked_about_what_is_settled(trained: Any) -> None:
    register(trained, "settling")
    propose = {"name": "deploy.propose", "model_name": "settling", "force": True}
    assert trained.run(**propose).settled == ""
    decided = {"model_name": "settling", "model_version": "1", "decision": "refused", "decided_by": "ada"}
    trained.run("deploy.promote", **decided)
    assert trained.run(**propose).settled == "version 1 was decided about: refused"
    tracking.connect(trained.deployment).set_registered_model_alias("settling", "champion", "1")
    assert trained.run(**propose).settled == "version 1 is the champion already"
    assert settled(version("2"), "1") == ""


def test_the_champion_is_shown_beside_the_proposal() -> None:
    assert "The champion is version 1: old" in card(version("2", "new"), version("1", "old"), PAGE)
    assert "champion already" in card(version("2"), version("2"), PAGE)


@pytest.mark.parametrize(
    ("tracking_uri", "page"),
    [
        ("https://ada:secret@mlflow.example/track/", "https://mlflow.example/track"),
        ("sqlite:////home/mlflow.db", "http://127.0.0.1:5055"),
        ("postgresql://ada:secret@database/mlflow", "http://127.0.0.1:5055"),
    ],
)
def test_the_card_links_to_mlflow_and_gives_no_password_away(
    tracking_uri: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(links.PAGE, "http://127.0.0.1:5055/")
    assert links.page(tracking_uri) == page
    assert f"]({page}/#/models/m/versions/1)" in card(version("1"), None, links.page(tracking_uri))


def test_a_card_has_no_link_where_no_page_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(links.PAGE, raising=False)
    assert "](" not in card(version("1"), None, links.page("sqlite:////home/mlflow.db"))


def test_a_description_cannot_write_markdown() -> None:
    assert "(http://mlflow:5000/#/models/m/versions/1)" in card(version("1"), None, PAGE)
    text = card(version("1", "[click](https://elsewhere) <img src=x> **bold**"), None, PAGE)
    assert r"\[click\]\(https://elsewhere\) \<img src=x\> \*\*bold\*\*" in text
