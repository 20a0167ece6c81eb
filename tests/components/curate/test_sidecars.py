import json
from pathlib import Path
from typing import Any

import pytest

from telecine.errors import BadData
from telecine_components.curate.split.sidecars import read_sidecar
from telecine_components.media.clips import PARTS
from telecine_models.backlot import clip

SIX = {part: f"The {part}." for part in PARTS}


def _read(folder: Path, truth: dict[str, Any]) -> Any:
    path = folder / "film.json"
    path.write_text(json.dumps(truth))
    return read_sidecar(path)


def test_the_truth_of_backlot_gives_all_six_parts(tmp_path: Path) -> None:
    truth = clip(1, num_frames=4, fps=8, width_px=32, height_px=32).truth
    columns = _read(tmp_path, truth).caption_columns(0.0, 0.5)
    assert columns == {"caption": truth["caption"], "captions": truth["structured_caption"], "captioner": "sidecar"}


def test_a_shot_is_told_by_the_words_that_overlap_it_most(tmp_path: Path) -> None:
    shots = [
        {"start_s": 0.0, "end_s": 2.0, "caption": "a lake"},
        {"start_s": 2.0, "end_s": 4.0, "structured_caption": SIX},
    ]
    sidecar = _read(tmp_path, {"shots": shots, "caption": "a day out"})
    assert sidecar.caption_columns(0.5, 2.1) == {"caption": "a lake", "captions": None, "captioner": "sidecar"}
    assert sidecar.caption_columns(1.9, 4.0) == {"caption": "The dense.", "captions": SIX, "captioner": "sidecar"}
    assert sidecar.caption_columns(5.0, 6.0)["caption"] == "a day out"


@pytest.mark.parametrize("given", [SIX | {"style": " "}, {"dense": "x"}, "a text", None])
def test_fewer_than_six_parts_are_no_structured_caption(tmp_path: Path, given: Any) -> None:
    columns = _read(tmp_path, {"caption": "a day out", "structured_caption": given}).caption_columns(0.0, 1.0)
    assert columns == {"caption": "a day out", "captions": None, "captioner": "sidecar"}


def test_nothing_said_has_no_captioner() -> None:
    assert read_sidecar(None).caption_columns(0.0, 1.0) == {"caption": "", "captions": None, "captioner": None}


@pytest.mark.parametrize("name", ["film.txt", "film.json"])
def test_a_mark_at_the_beginning_is_no_part_of_a_caption(tmp_path: Path, name: str) -> None:
    text = "a day out" if name.endswith(".txt") else '{"caption": "a day out"}'
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_sidecar(tmp_path / name).whole.caption == "a day out"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"caption": "half a \\ud83d"}', "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"caption": ' + "9" * 5000 + "}", "too many digits"),
        ('{"shots": [{"start_s": NaN, "end_s": 1}]}', "in seconds"),
        ('{"shots": [{"start_s": 0, "end_s": 1' + "0" * 400 + "}]}", "in seconds"),
    ],
)
def test_a_sidecar_that_cannot_be_meant_is_bad_data(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "film.json").write_text(text)
    with pytest.raises(BadData, match=reason):
        read_sidecar(tmp_path / "film.json")
