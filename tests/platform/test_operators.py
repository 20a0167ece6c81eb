"""The operator's errors: what is refused fails for good, also where nobody can be told."""

import dataclasses
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from telecine import component, settings
from telecine.errors import InputError, RetryLater
from telecine.operators import ComponentOperator
from telecine.storage import Store
from telecine.work import runs


@pytest.fixture
def operator() -> ComponentOperator:
    return ComponentOperator(component=component.find("backlot.render"))


def test_what_is_refused_is_recorded_and_never_tried_again(
    operator: ComponentOperator, deployment: settings.Settings
) -> None:
    with pytest.raises(AirflowFailException, match="^no such folder$"), operator._refusals("r", deployment):
        raise InputError("no such folder")
    (pointer,) = runs.pointers(Store(deployment.store_uri), "r")
    assert (pointer.decision, pointer.error, pointer.exit_code) == ("failed", "no such folder", 78)
    with pytest.raises(RetryLater), operator._refusals("r", deployment):
        raise RetryLater("another time")


def test_what_is_refused_is_never_tried_again_though_the_store_refuses_the_record(
    operator: ComponentOperator, deployment: settings.Settings, s3_store: str, monkeypatch: Any
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    here = dataclasses.replace(deployment, store_uri=s3_store)
    with pytest.raises(AirflowFailException, match="^no such folder$"), operator._refusals("r", here):
        raise InputError("no such folder")
