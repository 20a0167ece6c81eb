"""The funnel's laws on random clips and thresholds, and what curate.filter writes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from telecine.errors import InputError
from telecine_components.curate.filter.funnel import RULES, first_reason, funnel
from telecine_components.curate.filter.spec import Inputs
from telecine_components.curate.suitability.fit import DIRECTIONS
from telecine_components.curate.suitability.model import Model, Penalty
from telecine_components.media import clips

Run = Callable[..., Any]
LIMITS = Inputs(clips_uri="unused")
GOOD = {
    "clip_id": "0" * 16,
    "source": "a.mp4",
    "start_s": 0.0,
    "end_s": 3.0,
    "fps": 12.0,
    "width_px": 160,
    "height_px": 120,
    "bits_per_pixel": 0.1,
    "motion": 0.1,
    "stability": 0.9,
    "freeze": 0.0,
    "cut_doubt": -4.0,
    "flicker": 0.01,
    "blur": 0.3,
    "noise": 0.003,
    "blockiness": 0.02,
    "exposure": 0.5,
    "contrast": 0.8,
    "clipping": 0.0,
    "colourfulness": 0.4,
    "black_bars": 0.0,
    "overlay_text": 0.0,
    "logo": 0.0,
    "aesthetic": 0.6,
    "suitability": 4.5,
    "reason": None,
}
BROKEN: dict[str, dict[str, Any]] = {
    "too_short": {"end_s": 0.5},
    "too_long": {"end_s": 100.0},
    "too_small": {"height_px": 40},
    "too_narrow": {"width_px": 640},
    "too_jerky": {"fps": 3.0},
    "too_compressed": {"bits_per_pixel": 0.0001},
    "maybe_cut": {"cut_doubt": -0.5},
    "black_bars": {"black_bars": 0.6},
    "too_dark": {"exposure": 0.01},
    "too_bright": {"exposure": 0.95},
    "clipped": {"clipping": 0.9},
    "too_blurry": {"blur": 0.9},
    "too_noisy": {"noise": 0.2},
    "too_blocky": {"blockiness": 0.9},
    "overlaid": {"overlay_text": 0.4},
    "logo": {"logo": 1.0},
    "frozen": {"freeze": 1.0},
    "too_static": {"motion": 0.0},
    "too_fast": {"motion": 5.0},
    "shaky": {"stability": 0.0},
    "flickering": {"flicker": 1.0},
    "unsuitable": {"suitability": 1.2},
}


def _manifest(folder: Path, *changes: dict[str, Any]) -> Path:
    rows = [GOOD | {"clip_id": f"{index:016x}"} | change for index, change in enumerate(changes)]
    clips.write(folder / "clips.parquet", rows)
    return folder / "clips.parquet"


def _drawn(draw: np.random.Generator) -> dict[str, Any]:
    """A clip in which each measure is good, broken, or somewhere between."""
    row = dict(GOOD)
    for change in BROKEN.values():
        for name, value in change.items():
            if draw.random() < 0.3:
                row[name] += draw.random() * (value - row[name])
    return row


def _limits(draw: np.random.Generator) -> Inputs:
    """Some thresholds at random places between those of good and of broken clips, the others at their defaults."""
    chosen = {}
    for reason, rule in RULES.items():
        good, broken = (rule.value(*(row[name] for name in rule.reads)) for row in (GOOD, GOOD | BROKEN[reason]))
        if draw.random() < 0.5:
            chosen[rule.limit] = type(getattr(LIMITS, rule.limit))(good + draw.random() * (broken - good))
    return dataclasses.replace(LIMITS, **chosen)


def _passed(rows: list[dict[str, Any]], limits: Inputs) -> set[int]:
    return {index for index, row in enumerate(rows) if first_reason(row, limits) is None}


@pytest.mark.parametrize("reason", RULES)
def test_each_threshold_rejects_for_its_own_reason(reason: str) -> None:
    assert first_reason(GOOD, LIMITS) is None
    assert first_reason(GOOD | BROKEN[reason], LIMITS) == reason


@pytest.mark.parametrize(("start_s", "end_s"), [(3.1, 4.1), (1.1, 2.1), (0.033333, 1.033333)])
def test_a_clip_that_lasts_as_long_as_it_must_or_may_is_kept(start_s: float, end_s: float) -> None:
    limits = dataclasses.replace(LIMITS, min_duration_s=1.0, max_duration_s=1.0)
    assert first_reason(GOOD | {"start_s": start_s, "end_s": end_s}, limits) is None


def test_every_threshold_has_a_rule() -> None:
    named = {field.name for field in dataclasses.fields(Inputs) if not field.name.endswith("_uri")}
    assert sorted(rule.limit for rule in RULES.values()) == sorted(named)


def test_the_first_reason_in_the_order_counts() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        row, limits = _drawn(draw), _limits(draw)
        broken = [reason for reason, rule in RULES.items() if rule.breaks(row, limits)]
        assert first_reason(row, limits) == (broken[0] if broken else None)


def test_a_tighter_threshold_never_lets_more_through() -> None:
    draw = np.random.default_rng(1)
    rows = [_drawn(draw) for _ in range(60)]
    for _ in range(100):
        limits = _limits(draw)
        rule = list(RULES.values())[draw.integers(len(RULES))]
        value = getattr(limits, rule.limit)
        tighter = value * (1 + draw.random()) if rule.limit.startswith("min_") else value * draw.random()
        tightened = dataclasses.replace(limits, **{rule.limit: tighter})
        assert _passed(rows, tightened) <= _passed(rows, limits)


def test_the_order_of_the_rules_does_not_change_what_passes() -> None:
    draw = np.random.default_rng(2)
    rows = [_drawn(draw) for _ in range(60)]
    for _ in range(50):
        limits = _limits(draw)
        left = set(range(len(rows)))
        for reason in draw.permutation(list(RULES)):
            left = {index for index in left if not RULES[reason].breaks(rows[index], limits)}
        assert left == _passed(rows, limits)


def test_every_clip_that_came_in_is_kept_or_counted_once() -> None:
    draw = np.random.default_rng(3)
    bad_file = {"clip_id": None, "source": "b.mp4", "reason": "empty file"}
    for _ in range(50):
        limits = _limits(draw)
        rows = [row | {"reason": first_reason(row, limits)} for row in (_drawn(draw) for _ in range(40))]
        rows += [GOOD | {"reason": "duplicate"}, bad_file]
        counts = funnel(rows)
        assert counts["clips_in"] == 41 == counts["kept"] + sum(counts["rejected"].values())
        assert counts["rejected"]["duplicate"] == 1
        assert (counts["files"], counts["bad_files"]) == (2, 1)


def test_the_manifest_keeps_every_row_and_carries_the_thresholds(run_component: Run, tmp_path: Path) -> None:
    bad_file = {"clip_id": None, "source": "b.mp4", "reason": "empty file"}
    manifest = _manifest(tmp_path, {}, BROKEN["too_blurry"], bad_file)
    outputs = run_component("curate.filter", clips_uri=manifest, max_blur=0.6)
    table = pq.read_table(outputs.clips_uri.removeprefix("file://"))
    assert table.column("reason").to_pylist() == [None, "too_blurry", "empty file"]
    assert table.schema.metadata[b"max_blur"] == b"0.6"
    assert (outputs.num_clips, outputs.num_rejected) == (1, 1)
    counts = json.loads(Path(outputs.funnel_uri.removeprefix("file://")).read_text())
    assert counts == {"clips_in": 2, "kept": 1, "rejected": {"too_blurry": 1}, "files": 2, "bad_files": 1}
    first, _, third = table.to_pylist()
    (stage,) = first["stages"]
    assert stage["name"] == "curate.filter" and json.loads(stage["settings"])["max_blur"] == 0.6
    assert third["stages"] is None, "a bad file was not judged"
    assert first["suitability"] > 4


def test_a_reason_that_is_set_stays(run_component: Run, tmp_path: Path) -> None:
    once = run_component(
        "curate.filter", clips_uri=_manifest(tmp_path, {}, {}, BROKEN["too_blurry"], {"reason": "duplicate"})
    )
    again = run_component("curate.filter", clips_uri=once.clips_uri, max_blur=1.0, min_suitability=1.0)
    reasons = pq.read_table(again.clips_uri.removeprefix("file://")).column("reason").to_pylist()
    assert reasons == [None, None, "too_blurry", "duplicate"]
    assert (again.num_clips, again.num_rejected) == (2, 2)


def test_a_model_of_ones_own_decides(run_component: Run, tmp_path: Path) -> None:
    strict = Penalty(measure="colourfulness", knee=0.5, ruin=0.0, strength=1.0)
    (tmp_path / "model.json").write_text(Model(penalties=(strict,), worst=1.0, best=5.0, truth="ratings").to_json())
    vivid, grey = {"colourfulness": 0.6}, {"colourfulness": 0.1}
    manifest = _manifest(tmp_path, vivid, grey, grey | {"reason": "duplicate"})
    outputs = run_component("curate.filter", clips_uri=manifest, suitability_uri=tmp_path / "model.json")
    rows = pq.read_table(outputs.clips_uri.removeprefix("file://")).to_pylist()
    assert [row["reason"] for row in rows] == [None, "unsuitable", "duplicate"]
    assert [row["suitability"] for row in rows] == pytest.approx([5.0, 1.96, 1.96], abs=1e-5)


def test_a_clip_that_was_not_measured_is_told(run_component: Run, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"clip 0{15}1 of a\.mp4 has no noise, which max_noise needs; run curate\.split"
    ):
        run_component("curate.filter", clips_uri=_manifest(tmp_path, {}, {"noise": None}))
    rejected = _manifest(tmp_path, {}, {"noise": None, "reason": "duplicate"})
    assert run_component("curate.filter", clips_uri=rejected).num_clips == 1


def test_the_good_clip_has_every_measure_that_is_learned_from() -> None:
    assert {each.measure for each in DIRECTIONS} <= GOOD.keys()


def test_nothing_kept_is_refused_with_the_funnel(run_component: Run, tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, BROKEN["too_static"], BROKEN["too_static"], BROKEN["too_short"])
    with pytest.raises(InputError, match=r"3 clips from 1 files .*1 too_short, 2 too_static; loosen the thresholds"):
        run_component("curate.filter", clips_uri=manifest)


def test_a_file_that_is_no_manifest_is_refused(run_component: Run, tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_text("clip_id\n1\n")
    with pytest.raises(InputError, match=r"curate\.filter: clips_uri must be a manifest of clips"):
        run_component("curate.filter", clips_uri=tmp_path / "clips.parquet")
