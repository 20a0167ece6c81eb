"""deploy.report: one page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telecine_components.deploy.report.figures import bars, line_chart
from telecine_components.deploy.report.page import verdict


class Links(HTMLParser):
    """Collects what a page refers to, and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "data", "poster", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Outputs of a report on the session's training; the manifest has one clip and two bad files."""
    folder = tmp_path_factory.mktemp("curated")
    rows = [
        {"clip_id": "a" * 16, "source": "film_0000.mp4", "reason": None},
        {"clip_id": None, "source": "<script>alert(1)</script>.mp4", "reason": "no video stream"},
        {"clip_id": None, "source": "empty.mp4", "reason": "empty file"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet")
    funnel = {"clips_in": 20, "kept": 16, "rejected": {"too_dark": 3, "too_static": 1}, "files": 6, "bad_files": 2}
    (folder / "funnel.json").write_text(json.dumps(funnel))
    outputs, dataset = trained.outputs, str(trained.dataset)
    samples = trained.run(
        "evaluate.sample", model_uri=outputs.model_uri, prompts=["a red square"], seeds=[0], num_steps=2, num_threads=1
    )
    registration = trained.run(
        "deploy.register", model_uri=outputs.model_uri, training_uri=outputs.training_uri, dataset_uri=dataset
    )
    return trained.run(
        "deploy.report",
        clips_uri=str(folder / "clips.parquet"),
        funnel_uri=str(folder / "funnel.json"),
        dataset_uri=dataset,
        training_uri=outputs.training_uri,
        samples_uri=samples.samples_uri,
        registration_uri=registration.registration_uri,
    )


@pytest.fixture(scope="module")
def page(report: Any) -> Links:
    links = Links()
    links.feed(Path(report.report_uri.removeprefix("file://")).read_text())
    return links


def test_the_page_refers_to_nothing_outside_itself(page: Links) -> None:
    assert page.references
    assert all(reference.startswith("data:") for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import", page.text)


def test_the_page_plays_films_and_shows_the_sheet(page: Links) -> None:
    kinds = [reference.partition(";")[0] for reference in page.references]
    assert kinds == ["data:video/mp4", "data:image/png"]


def test_the_page_tells_funnel_losses_model_and_lineage(page: Links) -> None:
    for words in (
        "16 of 20",
        "too dark",
        "no video stream",
        "held-out loss",
        "telecine-flywheel",
        "CC0-1.0",
        "film_0002.mp4",
        "first time",
    ):
        assert words in page.text


def test_file_names_cannot_write_html(page: Links) -> None:
    assert "<script>alert(1)</script>.mp4" in page.text


def test_the_summary_has_what_a_terminal_prints(report: Any, trained: Any) -> None:
    summary = json.loads(Path(report.summary_uri.removeprefix("file://")).read_text())
    assert summary["funnel"]["kept"] == 16
    assert summary["held_out"]["loss"]["trained"] == trained.outputs.eval_loss
    assert summary["model_name"] == "telecine-flywheel"
    assert summary["bad_files"][1] == {"file": "empty.mp4", "reason": "empty file"}
    assert summary["decisions"]["pretrain.train"] in ("ran", "reused")


def held_out(low_untrained: float, low_mean: float, num_clips: int = 5) -> dict[str, Any]:
    return {
        "num_clips": num_clips,
        "loss": {"trained": 0.5, "untrained": 1.3, "mean_predictor": 1.1},
        "gain_over": {"untrained": {"low": low_untrained}, "mean_predictor": {"low": low_mean}},
    }


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (held_out(0.1, 0.1), "beats both"),
        (held_out(0.1, -0.1), "beats the untrained model, but not the mean predictor"),
        (held_out(-0.1, -0.1), "beats neither"),
        (held_out(0.1, 0.1, num_clips=1), "One clip says little"),
    ],
)
def test_the_verdict_claims_no_more_than_the_intervals(facts: dict[str, Any], words: str) -> None:
    assert words in verdict(facts)


def test_bars_are_shares_of_the_total() -> None:
    assert "width:25.0%" in bars([("kept", 5, "kept")], 20)


def test_a_chart_with_no_points_is_still_a_picture() -> None:
    assert line_chart({"training": []}, {}, x_label="step", y_label="loss").startswith("<svg")
