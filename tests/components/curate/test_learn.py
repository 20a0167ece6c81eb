"""curate.learn on clips whose measures and ratings are known by construction."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.errors import InputError
from telecine_components.curate.learn import judging
from telecine_components.curate.learn.planted import planted_qualities, planted_quality
from telecine_components.curate.learn.ratings import read_ratings
from telecine_components.curate.suitability.fit import DIRECTIONS
from telecine_components.media import clips

Run = Callable[..., Any]
Rows = list[dict[str, Any]]


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _rows(num_sources: int = 30) -> Rows:
    """Two clips a source; the blur of a source goes from none to much."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(2 * num_sources):
        measures = {each.measure: float(rng.uniform(0.4, 0.5)) for each in DIRECTIONS}
        span = {"start_s": 2.0 * (index % 2), "end_s": 2.0 * (index % 2) + 2}
        source = f"s{index // 2:02d}.mp4"
        blurred = measures | {"blur": 0.3 + 0.6 * (index // 2) / num_sources}
        rows.append({"clip_id": f"{index:016x}", "source": source, **span, **blurred, "reason": None})
    return rows


def _rating(row: dict[str, Any]) -> float:
    return round(float(np.clip(5 - 6 * (row["blur"] - 0.3), 1, 5)), 2)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    bad_file = {"clip_id": None, "source": "z.mp4", "reason": "empty file"}
    clips.write(tmp_path / "clips.parquet", [*_rows(), bad_file])
    return tmp_path / "clips.parquet"


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    """Write a CSV file."""

    def write(text: str) -> Path:
        (tmp_path / "ratings.csv").write_text(text)
        return tmp_path / "ratings.csv"

    return write


# The component


def test_a_model_is_learned_from_ratings_and_judged_on_other_sources(
    run_component: Run, manifest: Path, table: Callable[[str], Path]
) -> None:
    rows = _rows()
    ratings = table("clip_id,rating\n" + "".join(f"{row['clip_id']},{_rating(row)}\n" for row in rows))
    outputs = run_component("curate.learn", clips_uri=manifest, ratings_uri=ratings)
    assert (outputs.num_clips, outputs.num_sources) == (60, 30)
    assert outputs.spearman > 0.9 and outputs.error < 0.6
    model = json.loads(_local(outputs.model_uri).read_text())
    assert model["truth"] == "ratings" and model["metrics"]["spearman"] == outputs.spearman
    strengths = {each["measure"]: each["strength"] for each in model["penalties"]}
    assert strengths["blur"] == max(strengths.values())
    with _local(outputs.calibration_uri).open() as stream:
        bins = list(csv.DictReader(stream))
    assert sum(int(each["num_clips"]) for each in bins) == 60
    assert all(abs(float(each["mean_score"]) - float(each["mean_rating"])) < 0.8 for each in bins)
    assert _local(outputs.plot_uri).read_bytes().startswith(b"\x89PNG")
    judge = {"suitability_uri": outputs.model_uri, "min_suitability": 2.5}
    kept = run_component("curate.filter", clips_uri=_whole(manifest.parent), max_blur=1.0, **judge)
    scores = [row["suitability"] for row in clips.read(_local(kept.clips_uri), owner="test")]
    assert 0 < kept.num_clips == sum(score >= 2.5 for score in scores) < 60


def _whole(folder: Path) -> Path:
    """The same clips with what else curate.filter reads."""
    facts = {"fps": 24.0, "width_px": 320, "height_px": 180, "bits_per_pixel": 0.1, "cut_doubt": -4.0}
    faultless = ("freeze", "flicker", "noise", "blockiness", "clipping", "black_bars", "overlay_text", "logo")
    clips.write(folder / "whole.parquet", [row | facts | dict.fromkeys(faultless, 0.0) for row in _rows()])
    return folder / "whole.parquet"


def test_equal_inputs_give_equal_bytes(run_component: Run, manifest: Path, table: Callable[[str], Path]) -> None:
    ratings = table("source,rating\n" + "".join(f"{row['source']},{_rating(row)}\n" for row in _rows()[::2]))
    once, again = (
        run_component("curate.learn", clips_uri=manifest, ratings_uri=ratings, force=force) for force in (False, True)
    )
    for name in ("model_uri", "calibration_uri", "plot_uri"):
        assert _local(getattr(once, name)).read_bytes() == _local(getattr(again, name)).read_bytes()


def test_planted_defects_are_learned_from_and_ratings_outweigh_them(
    run_component: Run, manifest: Path, tmp_path: Path, table: Callable[[str], Path]
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for row in _rows():
        severity = min(1.0, (row["blur"] - 0.3) / 0.6)
        defects = [{"kind": "blur", "severity": severity}] if severity else []
        (films / row["source"]).with_suffix(".json").write_text(json.dumps({"defects": defects}))
    (films / "s29.json").unlink()
    outputs = run_component("curate.learn", clips_uri=manifest, truth_uri=films)
    assert (outputs.num_clips, outputs.num_sources) == (58, 29), "what has no truth is left out"
    both = run_component(
        "curate.learn", clips_uri=manifest, truth_uri=films, ratings_uri=table("source,rating\ns29.mp4,1\n")
    )
    assert both.num_clips == 60
    assert json.loads(_local(both.model_uri).read_text())["truth"] == "planted and ratings"


def test_too_little_to_learn_from_is_refused(run_component: Run, manifest: Path, table: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="needs ratings_uri or truth_uri to learn from, got neither"):
        run_component("curate.learn", clips_uri=manifest)
    few = table("source,rating\ns00.mp4,3\ns01.mp4,4\n")
    with pytest.raises(InputError, match="at least 20 rated clips of at least 5 sources .* got 4 of 2; rate more"):
        run_component("curate.learn", clips_uri=manifest, ratings_uri=few)


def test_a_clip_that_was_not_measured_is_told(run_component: Run, tmp_path: Path, table: Callable[[str], Path]) -> None:
    rows = [row | ({"noise": None} if row["clip_id"].endswith("7") else {}) for row in _rows()]
    clips.write(tmp_path / "clips.parquet", rows)
    ratings = table("source,rating\n" + "".join(f"{row['source']},3\n" for row in rows[::2]))
    with pytest.raises(InputError, match=r"clip 0{15}7 of s03\.mp4 has no noise; run curate\.split"):
        run_component("curate.learn", clips_uri=tmp_path / "clips.parquet", ratings_uri=ratings)


# Ratings


def test_raters_are_averaged_and_spans_find_their_clips(table: Callable[[str], Path]) -> None:
    text = """\ufeffsource, start_s, end_s, rating, rater
s00.mp4,,,2,ann
s00.mp4,1.9,5,4,bob
s01.mp4,0.0,1.0,5,ann
"""
    first, second, third = (f"{index:016x}" for index in range(3))
    assert read_ratings(table(text), _rows()) == {first: 2.0, second: 3.0, third: 5.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 has nothing"),
        ("clip_id\n0\n", "must have the columns rating and clip_id.*line 1 has clip_id"),
        ("rating\n3\n", "line 1 has rating"),
        ("clip_id,source,rating\n0,a,3\n", "line 1 has clip_id,source,rating"),
        ("clip_id,start_s,end_s,rating\n0,0,1,3\n", "line 1 has"),
        ("source,start_s,rating\ns00.mp4,0,3\n", "line 1 has"),
        ("source,rating,rating\ns00.mp4,3,3\n", "line 1 has"),
        ("source,rating,stars\ns00.mp4,3,3\n", "line 1 has"),
        ("source,rating\n", "got a header alone"),
        ("source,rating\ns00.mp4,3\ns01.mp4\n", "line 3: must have 2 values"),
        ("source,rating\ns00.mp4,3,4\n", "line 2: must have 2 values"),
        ("source,rating\ns00.mp4,good\n", "line 2: rating must be a finite number, got 'good'$"),
        ("source,rating\ns00.mp4,nan\n", "line 2: rating must be a finite number, got 'nan'$"),
        ("source,rating\ns00.mp4,1e400\n", "line 2: rating must be a finite number, got '1e400'$"),
        (f"source,rating\ns00.mp4,{'9' * 400}\n", "line 2: rating must be a finite number, got '9{59}$"),
        ("source,rating\ns00.mp4,3\ns01.mp4,5.5\n", "line 3: rating must lie between 1 and 5, got 5.5"),
        ("source,rating\ns00.mp4,0\n", "line 2: rating must lie between 1 and 5, got 0"),
        ("clip_id,rating\nffff,3\n", "line 2: no clip 'ffff' in clips_uri"),
        ("source,rating\nx.mp4,3\n", r"line 2: no clip of 'x\.mp4' in clips_uri"),
        ("source,start_s,end_s,rating\ns00.mp4,7,9,3\n", r"line 2: no clip of 's00\.mp4' between 7 and 9 s"),
        ("source,start_s,end_s,rating\ns00.mp4,2,1,3\n", "line 2: start_s must lie before end_s, got 2 and 1"),
        ("source,start_s,end_s,rating\ns00.mp4,x,1,3\n", "line 2: start_s must be a finite number, got 'x'"),
        ("source,start_s,end_s,rating\ns00.mp4,0,inf,3\n", "line 2: end_s must be a finite number, got 'inf'"),
        ("source,rating\ns00.mp4,3\ns00.mp4,3\n", "line 3: clip 0{16} is rated twice .no column rater"),
        ("source,rating,rater\ns00.mp4,3,a\ns00.mp4,3,a\n", "line 3: clip 0{16} is rated twice .'a' rated"),
    ],
)
def test_a_line_that_does_not_fit_is_named(table: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"curate.learn: ratings_uri.*{message}"):
        read_ratings(table(text), _rows())


def test_a_refused_line_is_told_with_its_file(table: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=r"^curate\.learn: ratings_uri, ratings\.csv line 2: rating must lie between"):
        read_ratings(table("source,rating\ns00.mp4,7\n"), _rows())


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("ratings.csv", "missing.csv"):
        with pytest.raises(InputError, match=f"ratings_uri must be a CSV file, got {name}"):
            read_ratings(tmp_path / name, _rows())


# Planted quality


def test_damages_multiply() -> None:
    assert planted_quality([]) == 5
    assert planted_quality([1.0, 0.2]) == 1
    assert planted_quality([0.5, 0.5]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("{", "a.json gives no defects"),
        ("[]", "a.json gives no defects"),
        ('{"shots": []}', "a.json gives no defects with kind and severity"),
        ('{"defects": [{"kind": "blur"}]}', "a.json gives no defects with kind and severity"),
        (
            '{"defects": [{"kind": "blur", "severity": 1.5}]}',
            r"severities must be numbers in \(0, 1\], a.json gives 1.5$",
        ),
        ('{"defects": [{"severity": 1e400}]}', "a.json gives inf$"),
        ('{"defects": [{"severity": 0.5}, {"severity": NaN}]}', "a.json gives nan$"),
        ('{"defects": [{"severity": "high"}]}', "a.json gives 'high'$"),
        ('{"defects": [{"severity": %s}]}' % ("9" * 400), "a.json gives 9{60}$"),
        ('{"defects": [{"severity": %s}]}' % ("9" * 5000), "a.json gives no defects .*Exceeds the limit"),
        ("[" * 100_000, "a.json gives no defects .*RecursionError"),
    ],
)
def test_truth_that_says_nothing_of_defects_is_refused(tmp_path: Path, truth: str, message: str) -> None:
    (tmp_path / "a.json").write_text(truth)
    with pytest.raises(InputError, match=f"curate.learn: truth_uri must be the folder of backlot.shoot.*{message}"):
        planted_qualities(["a.mp4"], tmp_path)


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no film of clips_uri has its \.json there, such as \['a.mp4'\]"):
        planted_qualities(["a.mp4", "b.mp4"], tmp_path)


# Judging


def test_rank_correlation_has_known_answers() -> None:
    def of(*values: float) -> Any:
        return np.array(values)

    assert judging.spearman(of(1, 2, 3), of(10, 30, 90)) == pytest.approx(1)
    assert judging.spearman(of(1, 2, 3), of(3, 2, 1)) == pytest.approx(-1)
    assert judging.spearman(of(1, 1, 1), of(3, 2, 1)) == 0
    # Ranks 1.5 1.5 3 4 against 1 2 3 4: by hand, 4.5 / sqrt(4.5 * 5).
    assert judging.spearman(of(1, 1, 2, 3), of(1, 2, 3, 4)) == pytest.approx(4.5 / np.sqrt(22.5))


def test_no_clip_is_scored_by_a_model_that_saw_its_source() -> None:
    rows = _rows(num_sources=7)
    seen: list[set[str]] = []

    class Spy:
        def __init__(self, sources: set[str]) -> None:
            self.sources = sources

        def score(self, row: dict[str, Any]) -> float:
            assert row["source"] not in self.sources
            return int(row["clip_id"], 16)

    def fit(some: Any, quality: Any) -> Any:
        assert len(some) == len(quality)
        seen.append({row["source"] for row in some})
        return Spy(seen[-1])

    scores = judging.held_out_scores(rows, np.zeros(len(rows)), fit, num_folds=3, seed=0)
    assert scores.tolist() == list(range(14)) and len(seen) == 3


def test_calibration_counts_every_clip_in_its_half_step() -> None:
    scores, quality = np.array([1.0, 1.4, 3.2, 5.0]), np.array([1.0, 2.0, 3.0, 4.0])
    bins = judging.calibration(scores, quality)
    assert [(each.low, each.num_clips) for each in bins] == [(1.0, 2), (3.0, 1), (4.5, 1)]
    assert bins[0].mean_rating == 1.5 and bins[0].mean_score == pytest.approx(1.2)
