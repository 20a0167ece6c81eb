import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from telecine.errors import InputError
from telecine.settings import Settings
from telecine.storage import Store
from telecine_components.media import clips
from telecine_components.media.encode import write_mp4

CUTS, FPS = (40, 84), 24
Rows = Callable[[str], list[dict[str, Any]]]
Run = Callable[..., Any]


def test_planted_cuts_are_found_and_trimmed_away(run_component: Run, footage: Path, rows_of: Rows) -> None:
    outputs = run_component("curate.split", videos_uri=footage, trim_frames=0)
    spans = [
        (r["start_frame"], r["end_frame"]) for r in rows_of(outputs.clips_uri) if r["source"].endswith("three.mp4")
    ]
    assert np.abs(np.array(spans) - [(0, CUTS[0]), (CUTS[0], CUTS[1]), (CUTS[1], 128)]).max() <= 1
    trimmed = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    for row in trimmed:
        if row["source"].endswith("three.mp4"):
            assert not any(row["start_frame"] - 3 <= cut < row["end_frame"] + 3 for cut in CUTS)


def test_a_row_says_where_its_clip_lies_and_what_is_known_of_it(
    run_component: Run, footage: Path, rows_of: Rows
) -> None:
    outputs = run_component("curate.split", videos_uri=footage)
    rows = rows_of(outputs.clips_uri)
    assert (outputs.num_files, outputs.num_bad_files, outputs.num_clips) == (2, 0, 4)
    assert [row["source"] for row in rows] == ["day one/three.mp4"] * 3 + ["one.mp4"]
    assert [row["caption"] for row in rows] == ["red blobs", "green blobs", "blue blobs", "many blobs"]
    assert [row["licence"] for row in rows] == ["CC0-1.0"] * 3 + [""]
    first = rows[0]
    assert (first["width_px"], first["height_px"], first["fps"], first["reason"]) == (96, 72, 24.0, None)
    assert first["num_frames"] == first["end_frame"] - first["start_frame"]
    assert first["end_s"] == pytest.approx(first["end_frame"] / FPS, abs=1e-6)
    assert len({row["clip_id"] for row in rows}) == 4


def test_a_row_says_how_its_clip_looks_and_who_measured_it(
    run_component: Run, footage: Path, rows_of: Rows, deployment: Settings
) -> None:
    rows = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    first = rows[0]
    measured = [field.name for field in clips.SCHEMA if field.type == "double" and field.name != "suitability"]
    assert all(isinstance(row[name], float) for row in rows for name in measured)
    assert (first["codec"], first["begins_with"], first["ends_with"]) == ("h264", "start", "cut")
    whole = (footage / "day one" / "three.mp4").stat().st_size
    assert 0.5 * whole < first["bits_per_pixel"] * 96 * 72 * 128 / 8 < whole
    # 36 frames at 24 a second, of which four a second are hashed and the poster shows those of two a second.
    assert len(first["fingerprint"]) == 8 * 6
    assert np.linalg.norm(first["descriptor"]) == pytest.approx(1, abs=1e-4)
    poster = Image.open(Path(deployment.store_uri.removeprefix("file://")) / first["poster"])
    assert (poster.format, poster.size) == ("JPEG", (3 * 96, 72))
    (stage,) = first["stages"]
    assert (stage["name"], len(stage["version"])) == ("curate.split", 64)
    assert json.loads(stage["settings"]) == {"detector": "telecine", "max_clip_s": 4.0, "trim_frames": 4}


def test_koalas_detector_finds_the_cuts_as_well(run_component: Run, footage: Path, rows_of: Rows) -> None:
    rows = rows_of(run_component("curate.split", videos_uri=footage, detector="koala", trim_frames=0).clips_uri)
    spans = [(row["start_frame"], row["end_frame"]) for row in rows if row["source"].endswith("three.mp4")]
    # Its bound on the smoothed score marks the pair before a cut too.
    assert np.abs(np.array(spans) - [(0, CUTS[0]), (CUTS[0], CUTS[1]), (CUTS[1], 128)]).max() <= 1
    with pytest.raises(InputError, match=r"detector must be one of \('telecine', 'koala'\), got 'lion'"):
        run_component("curate.split", videos_uri=footage, detector="lion")


def test_long_shots_become_clips_of_at_most_the_longest_length(
    run_component: Run, footage: Path, rows_of: Rows
) -> None:
    rows = rows_of(run_component("curate.split", videos_uri=footage, max_clip_s=1.0).clips_uri)
    assert max(row["end_s"] - row["start_s"] for row in rows) <= 1.0 + 1e-6
    assert [(r["start_frame"], r["end_frame"]) for r in rows if r["source"] == "one.mp4"] == [
        (0, 20),
        (20, 40),
        (40, 60),
    ]


def test_a_whip_pan_is_no_cut(run_component: Run, scene: Callable[..., Any], tmp_path: Path, rows_of: Rows) -> None:
    (tmp_path / "videos").mkdir()
    steps = [0.5] * 24 + [2.0, 4.0, *[6.0] * 8, 4.0, 2.0] + [0.5] * 22
    write_mp4(tmp_path / "videos" / "whip.mp4", scene(6, 58, steps), FPS)
    rows = rows_of(run_component("curate.split", videos_uri=tmp_path / "videos").clips_uri)
    assert [(row["start_frame"], row["end_frame"]) for row in rows] == [(0, 58)]


def test_each_bad_file_is_one_row_with_its_reason(run_component: Run, footage: Path, rows_of: Rows) -> None:
    whole = (footage / "one.mp4").read_bytes()
    (footage / "empty.mp4").touch()
    (footage / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (footage / "text.mov").write_text("not a film\n" * 50)
    shutil.copy(footage / "one.mp4", footage / "sidecar.mp4")
    with (footage / "sidecar.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")
    (footage / "sidecar.json").write_text("{")
    shutil.copy(footage / "one.mp4", footage / "two.mp4")
    outputs = run_component("curate.split", videos_uri=footage)
    reasons = {row["source"]: row["reason"] for row in rows_of(outputs.clips_uri) if row["reason"]}
    assert outputs.num_bad_files == len(reasons) == 5
    assert reasons["empty.mp4"] == "empty file"
    assert reasons["truncated.mp4"].startswith("truncated after")
    assert reasons["text.mov"].startswith("not a video")
    assert reasons["sidecar.mp4"].startswith("sidecar .json is not valid JSON")
    assert reasons["two.mp4"] == "same bytes as one.mp4"
    assert outputs.num_clips == 4


def test_of_files_with_the_same_bytes_one_with_a_sidecar_is_taken_and_a_sidecar_that_is_not_used_is_told(
    run_component: Run, footage: Path, rows_of: Rows
) -> None:
    for name in ("bare.mp4", "same.mp4", "two.mp4", "truth.mp4"):
        shutil.copy(footage / "one.mp4", footage / name)
    shutil.copy(footage / "one.txt", footage / "same.txt")
    (footage / "two.txt").write_text("few blobs\n")
    shutil.copy(footage / "one.txt", footage / "truth.json")
    rows = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    found = {row["source"]: (row["caption"], row["reason"]) for row in rows if row["source"] != "day one/three.mp4"}
    assert found == {
        "bare.mp4": (None, "same bytes as one.mp4"),
        "one.mp4": ("many blobs", None),
        "same.mp4": (None, "same bytes as one.mp4"),
        "truth.mp4": (None, "same bytes as one.mp4, but another sidecar: truth.json is not used"),
        "two.mp4": (None, "same bytes as one.mp4, but another sidecar: two.txt is not used"),
    }


def test_a_file_is_not_lost_to_one_of_the_same_bytes_whose_name_is_not_utf_8(
    run_component: Run, footage: Path, rows_of: Rows
) -> None:
    shutil.copy(footage / "one.mp4", footage / os.fsdecode(b"a\xff.mp4"))
    rows = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    reasons = {row["source"]: row["reason"] for row in rows}
    assert reasons["one.mp4"] is None
    assert reasons["a\\xff.mp4"] == "its name is not UTF-8: rename it"


def test_an_added_file_is_the_only_one_looked_at(
    run_component: Run, footage: Path, scene: Callable[..., Any], rows_of: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    items = (
        Path(run_component("curate.split", videos_uri=footage).clips_uri.removeprefix("file://")).parents[3] / "items"
    )
    before = {path: path.stat().st_mtime_ns for path in items.glob("*/commit.json")}
    write_mp4(footage / "added.mp4", scene(7, 30), FPS)
    rows = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    after = {path: path.stat().st_mtime_ns for path in items.glob("*/commit.json")}
    assert len(before) == 2
    assert len(after) == 3
    assert before.items() <= after.items()
    assert rows[0]["source"] == "added.mp4"


def test_a_changed_caption_is_seen(run_component: Run, footage: Path, rows_of: Rows) -> None:
    run_component("curate.split", videos_uri=footage)
    (footage / "one.txt").write_text("a few blobs")
    rows = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    assert rows[-1]["caption"] == "a few blobs"


def test_equal_footage_gives_equal_bytes(run_component: Run, footage: Path) -> None:
    first, again = (
        Path(
            run_component("curate.split", videos_uri=footage, force=force).clips_uri.removeprefix("file://")
        ).read_bytes()
        for force in (False, True)
    )
    assert first == again


def test_footage_in_a_bucket_gives_the_rows_of_the_same_footage_here(
    run_component: Run, footage: Path, s3_store: str, rows_of: Rows
) -> None:
    (footage / "truncated.mp4").write_bytes((footage / "one.mp4").read_bytes()[:5000])
    shutil.copy(footage / "one.mp4", footage / "two.mp4")
    bucket = Store(f"{s3_store.removesuffix('/store')}/footage")
    for path in footage.rglob("*.*"):
        bucket.upload(path, path.relative_to(footage).as_posix())
    there = rows_of(run_component("curate.split", videos_uri=bucket.uri).clips_uri)
    here = rows_of(run_component("curate.split", videos_uri=footage).clips_uri)
    unread = [row | {"source_digest": None} if row["reason"] else row for row in here]
    for row in (*there, *unread):
        row["poster"] = row["poster"] and Path(row["poster"]).name  # it lies beside the item, whose address differs
    assert there == unread, "of a file that gives no clip the bytes are not known here"
    assert [row["reason"] for row in there if row["source"] == "two.mp4"] == ["same bytes as one.mp4"]


def test_a_folder_without_videos_is_refused(run_component: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"curate\.split: no videos in .*empty; put files ending in"):
        run_component("curate.split", videos_uri=tmp_path / "empty")


def test_a_missing_folder_or_a_file_is_refused(run_component: Run, footage: Path) -> None:
    with pytest.raises(InputError):
        run_component("curate.split", videos_uri=footage / "nowhere")
    with pytest.raises(InputError, match="is a file, give its folder"):
        run_component("curate.split", videos_uri=footage / "one.mp4")


def test_real_cuts_are_found(run_component: Run, real_clips: Path, tmp_path: Path, rows_of: Rows) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("bikes.mp4", "scene_cuts.mp4", "carphone.mp4"):
        shutil.copy(real_clips / name, tmp_path / "videos" / name)
    rows = rows_of(
        run_component("curate.split", videos_uri=tmp_path / "videos", max_clip_s=60.0, trim_frames=0).clips_uri
    )
    for name in ("bikes.mp4", "scene_cuts.mp4"):
        starts = [row["start_frame"] for row in rows if row["source"] == name]
        assert starts == [0, 30, 76, 137, 187, 242]
    assert sum(row["source"] == "carphone.mp4" for row in rows) == 1
