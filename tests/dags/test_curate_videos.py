"""The DAG curate_videos by itself; test_handover.py runs it in a real Airflow."""

import datetime
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from telecine.errors import InputError
from telecine.operators import check_conf
from telecine.settings import Settings


@pytest.fixture(scope="module")
def dag() -> Any:
    return runpy.run_path(str(Path(__file__).parents[2] / "dags" / "curate_videos.py"))["dag"]


@pytest.mark.parametrize(
    ("videos_uri", "prefix", "variable", "found"),
    [
        ("/footage", "", "", "/footage"),
        ("/footage", "{day}", "", "/footage/2026-01-02"),
        ("", "part", "s3://films/all", "s3://films/all/part"),
        ("s3://films/{day}/", "/part/", "s3://other", "s3://films/2026-01-02/part"),
        ("", "{day}", "", ""),
    ],
)
def test_a_part_of_the_footage_lies_below_it(dag: Any, videos_uri: str, prefix: str, variable: str, found: str) -> None:
    """Without footage there is no part of it either, least of all a folder at the root of the machine."""
    template = dag.get_task("curate.split").inputs["videos_uri"]
    rendered = jinja2.Template(template).render(
        params=SimpleNamespace(videos_uri=videos_uri, prefix=prefix),
        var={"value": {"telecine_footage": variable} if variable else {}},
        data_interval_start=datetime.date(2026, 1, 2),
    )
    assert rendered == found


ENDPOINT = {
    "write_captioner": "openai",
    "write_endpoint_url": "http://127.0.0.1:8000/v1",
    "write_model": "tiny-vl",
}


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ({"write_captioner": "openai"}, "caption.write: endpoint_url must be given where captioner is 'openai'"),
        (ENDPOINT | {"write_model": ""}, "caption.write: model must be given where captioner is 'openai'"),
    ],
)
def test_a_captioner_without_an_endpoint_is_told_by_whichever_task_comes_first(
    dag: Any, deployment: Settings, conf: dict[str, str], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        check_conf(dag, conf)
    context: Any = {"dag": dag, "dag_run": SimpleNamespace(conf=conf), "params": dag.params.dump() | conf}
    with pytest.raises(InputError, match=complaint):
        dag.get_task("curate.split")._met(context, "night", deployment)
    check_conf(dag, ENDPOINT)


def test_what_was_curated_before_is_named_by_a_param_and_nothing_is_by_default(dag: Any) -> None:
    template = jinja2.Template(dag.get_task("curate.dedup").inputs["earlier_uri"])
    assert dag.params["earlier_uri"] == ""
    assert template.render(params=SimpleNamespace(earlier_uri="s3://films/curated")) == "s3://films/curated"
