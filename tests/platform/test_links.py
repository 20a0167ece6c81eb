"""Links of a question to a person: MLflow's page where there is one, a signed link on s3, else the place itself."""

import dataclasses
from urllib.request import urlopen

import pytest

from telecine import links, settings, tracking
from telecine.storage import Store
from telecine.work import runs


def met(deployment: settings.Settings, mlflow_run_id: str) -> None:
    pointer = runs.Pointer(
        task="made",
        component="align.collect",
        key="0",
        decision="ran",
        reason="",
        inputs={},
        mlflow_run_id=mlflow_run_id,
    )
    runs.point(Store(deployment.store_uri), "r", pointer)


def test_a_page_is_linked_only_for_a_run_that_it_has(
    deployment: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = tracking.connect(deployment).create_run("0").info.run_id
    met(deployment, run_id)
    assert links.artifacts(deployment, "r", "made") == "", "nobody said where MLflow's page is"
    monkeypatch.setenv(links.PAGE, "http://127.0.0.1:5000/")
    page = links.artifacts(deployment, "r", "made")
    assert page == f"http://127.0.0.1:5000/#/experiments/0/runs/{run_id}/artifacts"
    assert links.artifacts(deployment, "r", "another") == ""
    met(deployment, "0123456789abcdef0123456789abcdef")
    assert links.artifacts(deployment, "r", "made") == "", "the work was done for somebody else's MLflow"


def test_a_tracker_that_is_away_costs_the_link_and_not_the_question(
    deployment: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    met(deployment, "0123456789abcdef0123456789abcdef")
    away = dataclasses.replace(deployment, tracking_uri="http://somebody:hidden-word@127.0.0.1:9")
    assert links.artifacts(away, "r", "made") == ""


def test_a_file_is_linked_as_directly_as_can_be(s3_store: str) -> None:
    page = "http://127.0.0.1:5000/#/experiments/0/runs/1/artifacts"
    assert links.file(page, "pairs", "a b.mp4", "s3://x/y", seconds=9) == f"[a b.mp4]({page}/pairs/a%20b.mp4)"
    assert links.file("", "pairs", "one.mp4", "file:///store/y", seconds=9) == "`file:///store/y/one.mp4`"
    store = Store(s3_store)
    store.write("films/one.mp4", b"film")
    linked = links.file("", "pairs", "one.mp4", store.uri_of("films"), seconds=10**9)
    assert linked.startswith("[one.mp4](http://127.0.0.1:") and "X-Amz-Expires=3600" in linked
    url = linked.partition("](")[2].rstrip(")")
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - the link that was just made
        assert answer.read() == b"film"
