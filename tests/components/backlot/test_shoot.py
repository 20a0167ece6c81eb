"""Clips on disk: a film with sound, words and numbers that agree with each other, and one table of them all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from telecine.errors import InputError

SMALL = {"num_clips": 6, "num_frames": 12, "fps": 12, "width_px": 32, "height_px": 32, "seed": 3}


def _videos(outputs: Any) -> Path:
    return Path(outputs.videos_uri.removeprefix("file://"))


def test_every_clip_has_a_film_with_sound_its_truth_and_a_row(run_component: Callable[..., Any]) -> None:
    outputs = run_component("backlot.shoot", **SMALL, defect_ratio=0.7)
    folder, rows = _videos(outputs), pq.read_table(_videos(outputs) / "truth.parquet").to_pylist()
    assert len(rows) == outputs.num_clips == 6
    assert [row["is_played"] for row in rows] == [False, True, False] * 2
    assert [row["scenario"] is not None for row in rows] == [False, False, True] * 2
    assert outputs.num_spoilt == sum(bool(row["defects"]) for row in rows) > 0
    assert outputs.num_implausible == sum(row["plausible"] is False for row in rows)
    for row in rows:
        stem = folder / row["video"]
        truth = json.loads(stem.with_suffix(".json").read_text())
        with av.open(str(stem)) as film, np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
            assert sum(1 for _ in film.decode(video=0)) == 12
            assert [stream.codec_context.name for stream in film.streams.audio] == ["aac"]
            assert arrays["depth"].shape == arrays["instances"].shape == (12, 32, 32)
            assert arrays["poses"].shape == (12, 3, 4)
            assert ("keys" in arrays) == row["is_played"] == (truth["actions"] is not None)
        assert (row["caption"], row["caption_background"]) == (
            truth["caption"],
            truth["structured_caption"]["background"],
        )
        assert row["licence"] == "CC0-1.0"


def test_equal_inputs_give_equal_bytes_and_a_longer_list_starts_with_the_shorter(
    run_component: Callable[..., Any],
) -> None:
    first = _videos(run_component("backlot.shoot", **SMALL))
    seen = {path.name: path.read_bytes() for path in first.iterdir()}
    again = _videos(run_component("backlot.shoot", **SMALL, force=True))
    assert {path.name: path.read_bytes() for path in again.iterdir()} == seen
    longer = _videos(run_component("backlot.shoot", **(SMALL | {"num_clips": 7})))
    assert all((longer / name).read_bytes() == data for name, data in seen.items() if name != "truth.parquet")


def test_a_subject_and_a_style_are_kept_to(run_component: Callable[..., Any]) -> None:
    asked = SMALL | {"num_clips": 4, "subject": "physics", "style": "block game", "violation_ratio": 1.0}
    rows = pq.read_table(_videos(run_component("backlot.shoot", **asked)) / "truth.parquet").to_pylist()
    assert {row["style"] for row in rows} == {"block game"}
    assert [row["plausible"] for row in rows] == [False] * 4
    assert all(row["violation"] for row in rows)


def test_a_subject_that_there_is_not_is_named(run_component: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"subject must be one of .*'physics'"):
        run_component("backlot.shoot", **(SMALL | {"subject": "weather"}))
