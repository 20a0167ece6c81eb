import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from telecine.errors import InputError
from telecine_components.curate.filter.funnel import REASONS, first_reason, funnel
from telecine_components.curate.filter.spec import Inputs
from telecine_components.media import clips

Run = Callable[..., Any]
LIMITS = Inputs(clips_uri="unused")
GOOD = {
    "clip_id": "0" * 16,
    "source": "a.mp4",
    "start_s": 0.0,
    "end_s": 3.0,
    "width_px": 160,
    "height_px": 120,
    "motion": 0.05,
    "blur": 0.3,
    "exposure": 0.5,
}
BROKEN = {
    "too_short": {"end_s": 0.5},
    "too_long": {"end_s": 100.0},
    "too_small": {"height_px": 40},
    "too_dark": {"exposure": 0.01},
    "too_bright": {"exposure": 0.95},
    "too_blurry": {"blur": 0.7},
    "too_static": {"motion": 0.0},
    "too_fast": {"motion": 5.0},
}


def _manifest(folder: Path, *changes: dict[str, Any]) -> Path:
    rows = [GOOD | {"clip_id": f"{index:016x}"} | change for index, change in enumerate(changes)]
    clips.write(folder / "clips.parquet", rows)
    return folder / "clips.parquet"


@pytest.mark.parametrize("reason", REASONS)
def test_each_threshold_rejects_for_its_own_reason(reason: str) -> None:
    assert first_reason(GOOD, LIMITS) is None
    assert first_reason(GOOD | BROKEN[reason], LIMITS) == reason


def test_the_first_reason_in_the_order_counts() -> None:
    everything: dict[str, Any] = {}
    for reason in reversed(REASONS):
        if reason not in ("too_long", "too_bright", "too_fast"):
            everything |= BROKEN[reason]
    order = ["too_short", "too_small", "too_dark", "too_blurry", "too_static"]
    for reason, cure in zip(order, ("end_s", "height_px", "exposure", "blur", "motion"), strict=True):
        assert first_reason(GOOD | everything, LIMITS) == reason
        del everything[cure]


def test_a_tighter_threshold_never_keeps_more() -> None:
    rows = [GOOD | {"blur": blur / 10, "motion": blur / 100} for blur in range(11)]
    for name, values in {"max_blur": (0.8, 0.5, 0.2), "min_motion": (0.0, 0.03, 0.08)}.items():
        kept = [sum(first_reason(r, Inputs(clips_uri="unused", **{name: v})) is None for r in rows) for v in values]
        assert kept == sorted(kept, reverse=True)


def test_every_clip_that_came_in_is_kept_or_counted_once() -> None:
    rows = [GOOD | change for change in BROKEN.values()] + [GOOD, GOOD | BROKEN["too_short"] | BROKEN["too_blurry"]]
    marked = [row | {"reason": first_reason(row, LIMITS)} for row in rows]
    counts = funnel([*marked, {"clip_id": None, "source": "b.mp4", "reason": "empty file"}])
    assert counts["clips_in"] == 10 == counts["kept"] + sum(counts["rejected"].values())
    assert counts["rejected"]["too_short"] == 2
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


def test_a_filtered_manifest_can_be_filtered_again(run_component: Run, tmp_path: Path) -> None:
    once = run_component("curate.filter", clips_uri=_manifest(tmp_path, {}, BROKEN["too_blurry"]))
    again = run_component("curate.filter", clips_uri=once.clips_uri, max_blur=0.9)
    assert again.num_clips == 2


def test_nothing_kept_is_refused_with_the_funnel(run_component: Run, tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, BROKEN["too_static"], BROKEN["too_static"], BROKEN["too_short"])
    with pytest.raises(InputError, match=r"3 clips from 1 files .*1 too_short, 2 too_static; loosen the thresholds"):
        run_component("curate.filter", clips_uri=manifest)


def test_a_file_that_is_no_manifest_is_refused(run_component: Run, tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_text("clip_id\n1\n")
    with pytest.raises(InputError, match=r"curate\.filter: clips_uri must be a manifest of clips"):
        run_component("curate.filter", clips_uri=tmp_path / "clips.parquet")
