"""Samples with what is true of them beside: places in the index, arrays that agree with the frames, equal bytes."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from telecine import settings
from telecine_components.backlot.encode.annotations import annotations, nearness
from telecine_components.backlot.encode.spec import STYLES
from telecine_components.media.index import SCHEMA
from telecine_components.media.shards import read_array
from telecine_models.backlot import clip
from telecine_models.backlot.styles import Style

Run = Callable[..., Any]
SMALL: dict[str, Any] = {
    "num_clips": 5,
    "num_frames": 4,
    "width_px": 16,
    "height_px": 16,
    "element_px": 8,
    "clips_per_shard": 2,
}


@pytest.fixture
def rows(run_component: Run) -> Callable[..., list[dict[str, Any]]]:
    """Encode and read the index."""

    def encode(**inputs: Any) -> list[dict[str, Any]]:
        outputs = run_component("backlot.encode", **(SMALL | inputs))
        folder = Path(outputs.dataset_uri.removeprefix("file://"))
        return list(pq.read_table(folder / "index.parquet").to_pylist())

    return encode


def arrays_of(row: dict[str, Any], deployment: settings.Settings) -> dict[str, np.ndarray[Any, Any]]:
    """Everything that a sample has beside its frames."""
    shard = deployment.home / "store" / row["shard"]
    return {each["name"]: read_array(shard, each["offset"], each["length"]) for each in row["members"]}


@pytest.mark.parametrize("subject", ["camera", "play"])
def test_a_sample_has_the_clip_s_frames_and_what_is_true_of_them(
    rows: Callable[..., list[dict[str, Any]]], deployment: settings.Settings, subject: str
) -> None:
    found = rows(subject=subject, style="open world", seed=3)
    assert [row["clip_id"] for row in found] == [f"backlot-{seed:06d}" for seed in range(3, 8)]
    assert {row["split"] for row in found} == {"train", "val"}
    assert {(row["licence"], row["consent"]) for row in found} == {("CC0-1.0", "synthetic")}
    played = {"keys", "mouse"} if subject == "play" else set()
    for seed, row in enumerate(found, start=3):
        shot = clip(
            seed,
            num_frames=4,
            fps=8,
            width_px=16,
            height_px=16,
            style="open world",
            actions="random" if played else None,
        )
        frames = read_array(deployment.home / "store" / row["shard"], row["offset"], row["length"])
        np.testing.assert_array_equal(frames, shot.frames)
        assert row["source_digest"] == hashlib.sha256(shot.frames.tobytes()).hexdigest()
        beside = arrays_of(row, deployment)
        assert set(beside) >= {"depth", "camera"} | played
        np.testing.assert_array_equal(beside["camera"], shot.poses.astype(np.float32))
        if played:
            assert shot.actions is not None
            np.testing.assert_array_equal(beside["keys"], shot.actions.keys)
            np.testing.assert_allclose(beside["mouse"], shot.actions.mouse_deg, rtol=1e-6)


def test_a_source_is_the_clip_outside_of_its_mask_and_another_inside() -> None:
    shot, other = (clip(seed, num_frames=4, fps=8, width_px=32, height_px=32) for seed in (0, 1))
    found = annotations(shot, other, 16)
    mask, source = found["source_mask"], found["source"]
    assert 0 < mask.mean() < 1
    np.testing.assert_array_equal(source[~mask], shot.frames[~mask])
    np.testing.assert_array_equal(source[mask], other.frames[mask])
    largest = 1 + np.bincount(shot.instances.ravel())[1:].argmax()
    assert mask[shot.instances == largest].all()
    for frame in mask:
        assert frame.sum() == frame.any(0).sum() * frame.any(1).sum(), "a box, which does not tell an outline"
    assert found["elements"].shape == (len(found["elements"]), 16, 16, 3)
    assert 1 <= len(found["elements"]) <= 4


def test_depth_is_nearer_where_it_is_brighter() -> None:
    levels = nearness(np.array([[[2.0, 4.0, 100.0]]], dtype=np.float32))
    assert levels.tolist() == [[[255, 128, 5]]]


def test_members_follow_their_sample_in_the_shard_as_webdataset_has_it(
    rows: Callable[..., list[dict[str, Any]]], deployment: settings.Settings
) -> None:
    found = rows()
    with tarfile.open(deployment.home / "store" / found[0]["shard"]) as shard:
        names = shard.getnames()
    keys = [name.partition(".")[0] for name in names]
    assert keys == sorted(keys, key=keys.index), "samples do not mix"
    assert {f"{found[0]['sample_id']}.{each['name']}.npy" for each in found[0]["members"]} < set(names)
    assert set(found[0]) == {*SCHEMA.names, "members"}


def test_equal_inputs_give_equal_bytes_and_a_longer_list_begins_with_the_shorter(
    run_component: Run, rows: Callable[..., list[dict[str, Any]]], deployment: settings.Settings
) -> None:
    first = rows()
    assert rows(force=True) == first
    longer = rows(num_clips=6)
    assert [row["sample_id"] for row in longer[:5]] == [row["sample_id"] for row in first]
    assert [row["shard"] for row in longer[:4]] == [row["shard"] for row in first[:4]], "drawn once, ever"


def test_styles_are_those_of_backlot() -> None:
    assert (*get_args(Style), "any") == STYLES
