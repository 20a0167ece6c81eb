import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from telecine.errors import InputError
from telecine_components.caption.write.run import with_rhythm
from telecine_components.caption.write.told import merged
from telecine_components.caption.write.windows import windows
from telecine_components.media import clips
from telecine_components.media.clips import PARTS

Pixels = npt.NDArray[np.uint8]
Film = Callable[..., Pixels]
Run = Callable[..., Any]
Manifest = Callable[..., Path]
Rows = Callable[[str], dict[str, dict[str, Any]]]


@pytest.fixture
def caption(run_component: Run, tmp_path: Path) -> Run:
    """Run caption.write on the manifest and the videos in ``tmp_path``."""
    here = {"clips_uri": tmp_path / "clips.parquet", "videos_uri": tmp_path / "videos"}
    return lambda **inputs: run_component("caption.write", **(here | inputs))


@pytest.mark.parametrize(
    ("num_frames", "spans"),
    [
        (600, [(0, 256), (256, 600)]),
        (640, [(0, 256), (256, 512), (512, 640)]),
        (200, [(0, 200)]),
        (256, [(0, 256)]),
        (4, [(0, 4)]),
        (3, []),
    ],
)
def test_windows_are_those_of_cosmos_curate(num_frames: int, spans: list[tuple[int, int]]) -> None:
    assert windows(num_frames, 256, 128) == spans


def test_windows_are_merged_in_order_and_say_nothing_twice() -> None:
    first = dict.fromkeys(PARTS, "A red car.") | {"action": "It stops."}
    second = dict.fromkeys(PARTS, "A red car.") | {"action": "It turns.", "camera": None}
    assert merged([first, second]) == dict.fromkeys(PARTS, "A red car.") | {"action": "It stops. It turns."}
    assert merged([second])["camera"] is None


def test_kept_clips_get_six_parts_and_the_others_stay_as_they_are(
    caption: Run, manifest: Manifest, film: Film, rows_of: Rows
) -> None:
    names = ("pan.mp4", "still.mp4", "short.mp4", "told.mp4", "gone.mp4")
    path = manifest({name: film(24, right=int(name == "pan.mp4")) for name in names})
    rows = {row["source"]: row for row in clips.read(path, owner="test")}
    rows["short.mp4"]["reason"] = "too_short"
    rows["told.mp4"] |= {"caption": "a lake of blobs", "captioner": "sidecar"}
    rows["gone.mp4"] |= {"start_s": 90.0, "end_s": 92.0}
    clips.write(path, [*rows.values(), {"source": "empty.mp4", "reason": "empty file"}])
    outputs = caption()
    told = rows_of(outputs.clips_uri)
    assert told["pan.mp4"]["captions"]["camera"] == "The camera pans right."
    assert told["still.mp4"]["captions"]["camera"] == "The camera is static."
    for name in ("pan.mp4", "still.mp4"):
        stage = told[name]["stages"][-1]
        assert told[name]["caption"] == told[name]["captions"]["dense"]
        assert told[name]["captioner"] == "signals"
        assert (stage["name"], json.loads(stage["settings"])) == ("caption.write", {"captioner": "signals"})
    assert (told["short.mp4"]["captioner"], told["short.mp4"]["stages"]) == (None, None)
    assert (told["told.mp4"]["caption"], told["told.mp4"]["captions"]) == ("a lake of blobs", None)
    assert told["gone.mp4"]["reason"] == "no frame between 90.00 and 92.00 s"
    assert told["empty.mp4"]["reason"] == "empty file"
    assert (outputs.num_captioned, outputs.num_sidecar, outputs.num_faults) == (3, 1, 1)
    faults = json.loads(Path(outputs.faults_uri.removeprefix("file://")).read_text())
    assert faults == {rows["gone.mp4"]["clip_id"]: "no frame between 90.00 and 92.00 s"}


def test_what_lay_beside_the_video_is_replaced_where_that_is_asked(
    caption: Run, manifest: Manifest, film: Film, rows_of: Rows
) -> None:
    manifest({"a.mp4": film(12)}, caption="a lake of blobs", captioner="sidecar")
    row = rows_of(caption(replace=True).clips_uri)["a.mp4"]
    assert row["captioner"] == "signals"
    assert "The camera is static." in row["caption"]


def test_other_videos_than_the_manifests_are_refused(
    caption: Run, manifest: Manifest, film: Film, tmp_path: Path
) -> None:
    manifest({"a.mp4": film(12)})
    (tmp_path / "videos" / "a.mp4").write_bytes(b"other")
    with pytest.raises(InputError, match=r"caption\.write: a\.mp4 differs from what clips_uri describes"):
        caption()


def test_footage_that_is_cut_often_has_a_rhythm_and_one_shot_has_none() -> None:
    rows = [
        {
            "clip_id": f"{index}",
            "source": source,
            "shot_id": f"{source}{index // 2}",
            "start_s": index,
            "end_s": index + 1,
        }
        for source, num in (("cut.mp4", 8), ("take.mp4", 2))
        for index in range(num)
    ]
    known = {(row["source"], row["mean_shot_s"]) for row in with_rhythm(rows)}
    assert known == {("cut.mp4", 2.0), ("take.mp4", None)}
