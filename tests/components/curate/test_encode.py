import dataclasses
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from telecine.errors import InputError
from telecine.settings import Settings
from telecine_components.curate.encode.samples import write_shard
from telecine_components.curate.encode.spec import Inputs
from telecine_components.curate.encode.windows import size_of, windows_of
from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.index import held_out_clips
from telecine_components.media.planes import planes_of, thumbnail
from telecine_components.media.shards import read_array

Run = Callable[..., Any]
Rows = Callable[[str], list[dict[str, Any]]]
INPUTS = Inputs(clips_uri="unused", videos_uri="unused", num_frames=4, sample_fps=8.0)


@pytest.fixture
def encode(run_component: Run, footage: Path) -> Callable[..., Any]:
    """Split, filter and encode ``footage``."""

    def run(**inputs: Any) -> Any:
        split = run_component("curate.split", videos_uri=footage)
        kept = run_component("curate.filter", clips_uri=split.clips_uri, min_side_px=32)
        sizes = {"width_px": 24, "height_px": 16, "num_frames": 4} | inputs
        return run_component("curate.encode", clips_uri=kept.clips_uri, videos_uri=footage, **sizes)

    return run


@pytest.fixture
def index_of(rows_of: Rows) -> Callable[[Any], list[dict[str, Any]]]:
    return lambda outputs: rows_of(f"{outputs.dataset_uri}/index.parquet")


def _local(deployment: Settings, row: dict[str, Any]) -> Path:
    return Path(deployment.store_uri.removeprefix("file://")) / row["shard"]


def _clip(start_s: float, end_s: float) -> dict[str, Any]:
    return {
        "clip_id": "ab",
        "start_s": start_s,
        "end_s": end_s,
        "start_frame": 0,
        "end_frame": 0,
        "width_px": 4,
        "height_px": 3,
    }


def test_windows_fit_in_the_clip_and_never_overlap() -> None:
    windows = windows_of(_clip(1.0, 3.2), INPUTS)
    assert len(windows) == 4
    edges = [edge for window in windows for edge in (window.times_s[0], window.times_s[-1] + 1 / 8)]
    assert edges == sorted(edges)
    assert edges[0] >= 1.0
    assert edges[-1] <= 3.2


def test_a_clip_shorter_than_a_window_gives_none_and_one_of_its_length_gives_one() -> None:
    assert windows_of(_clip(0.0, 0.49), INPUTS) == []
    assert [window.times_s for window in windows_of(_clip(0.0, 0.5), INPUTS)] == [(0.0, 0.125, 0.25, 0.375)]


@pytest.mark.parametrize(
    ("clip", "size"),
    [((1280, 720), (336, 192)), ((720, 1280), (192, 336)), ((640, 272), (400, 160)), ((9, 9), (256, 256))],
)
def test_a_sample_may_keep_the_aspect_of_its_clip_at_about_the_same_area(
    clip: tuple[int, int], size: tuple[int, int]
) -> None:
    inputs = dataclasses.replace(INPUTS, width_px=256, height_px=256, keep_aspect=True)
    described = {"width_px": clip[0], "height_px": clip[1]}
    assert size_of(described, inputs) == size
    assert size_of(described, dataclasses.replace(inputs, keep_aspect=False)) == (256, 256)
    assert abs(size[0] * size[1] / 256**2 - 1) < 0.05


def test_samples_of_several_sizes_lie_beside_each_other(
    encode: Run, index_of: Rows, footage: Path, deployment: Settings, scene: Callable[..., npt.NDArray[np.uint8]]
) -> None:
    tall = np.concatenate([scene(8, 48), scene(9, 48)], axis=1)[:, :96, :48]
    write_mp4(footage / "tall.mp4", tall, 24)
    rows = index_of(encode(keep_aspect=True, side_multiple_px=4))
    assert {(row["source"], row["width_px"], row["height_px"]) for row in rows} == {
        ("day one/three.mp4", 24, 16),
        ("one.mp4", 24, 16),
        ("tall.mp4", 12, 28),
    }
    for row in rows:
        frames = read_array(_local(deployment, row), row["offset"], row["length"])
        assert frames.shape == (4, row["height_px"], row["width_px"], 3)


def test_held_out_clips_are_at_least_one_and_never_all() -> None:
    for num_clips in (2, 3, 10, 200):
        clips = {f"{clip:016x}": f"shot{clip // 2}" for clip in range(num_clips)}
        for val_ratio in (0.001, 0.2, 0.999):
            assert 1 <= len(held_out_clips(clips, val_ratio=val_ratio, seed=0)) < num_clips
    assert held_out_clips(clips, val_ratio=0.2, seed=0) != held_out_clips(clips, val_ratio=0.2, seed=1)


def test_a_shot_is_held_out_whole() -> None:
    shots = {f"{clip:016x}": f"shot{clip // 3}" for clip in range(60)}
    held = held_out_clips(shots, val_ratio=0.2, seed=0)
    assert len(held) == 12
    assert not {shots[clip] for clip in held} & {shot for clip, shot in shots.items() if clip not in held}


def test_the_index_leads_to_the_pixels_of_the_source(
    encode: Run, index_of: Rows, footage: Path, deployment: Settings
) -> None:
    rows = [row for row in index_of(encode(max_samples_per_clip=1)) if row["source"] == "one.mp4"]
    frames = read_array(_local(deployment, rows[0]), rows[0]["offset"], rows[0]["length"])
    assert frames.shape == (4, 16, 24, 3)
    # 60 frames at 24 fps: the one window lasts 0.5 s in the middle of 2.5 s, and takes every third frame.
    with open_video(footage / "one.mp4") as video:
        pictures: list[npt.NDArray[np.uint8]] = [thumbnail(planes_of(frame), 24, 16) for _, frame in video.frames()]
    assert np.array_equal(frames, np.stack([pictures[24 + 3 * step] for step in range(4)]))


def test_a_film_that_stands_still_later_gives_the_frames_of_its_clips_all_the_same(tmp_path: Path) -> None:
    stamps = [*range(40), *range(1000, 1010)]  # at 24 a second, so two a second on the average
    with av.open(str(tmp_path / "still.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 24)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    clip = _clip(20 / 24, 36 / 24) | {"start_frame": 20, "end_frame": 36, "source_digest": "", "caption": ""}
    clip |= {"licence": "", "consent": ""}
    windows = windows_of(clip, dataclasses.replace(INPUTS, max_samples_per_clip=1))
    (sample,) = write_shard(tmp_path / "still.mp4", windows, INPUTS, tmp_path / "shard.tar")
    frames = read_array(tmp_path / "shard.tar", sample["offset"], sample["length"])
    assert [round(float(frame.mean()) / 4) for frame in frames] == [22, 25, 28, 31]


def test_a_shard_is_a_webdataset_tar(encode: Run, index_of: Rows, deployment: Settings) -> None:
    rows = index_of(encode())
    for row in rows:
        with tarfile.open(_local(deployment, row)) as tar:
            members = {member.name: member for member in tar}
            place = members[f"{row['sample_id']}.frames.npy"]
            assert (place.offset_data, place.size) == (row["offset"], row["length"])
            text = tar.extractfile(f"{row['sample_id']}.txt")
            assert text is not None
            assert text.read().decode() == row["caption"]
            assert f"{row['sample_id']}.json" in members
    assert len({row["sample_id"] for row in rows}) == len(rows)


def test_no_clip_is_on_both_sides_of_the_split(encode: Run, index_of: Rows) -> None:
    outputs = encode(num_frames=2)
    rows = index_of(outputs)
    train = {row["clip_id"] for row in rows if row["split"] == "train"}
    val = {row["clip_id"] for row in rows if row["split"] == "val"}
    assert train
    assert val
    assert not train & val
    assert (outputs.num_samples, outputs.num_train + outputs.num_val) == (len(rows), len(rows))
    assert outputs.num_clips == len(train | val) == 4


def test_samples_carry_caption_rights_and_lineage(encode: Run, index_of: Rows) -> None:
    rows = [row for row in index_of(encode()) if row["source"] == "day one/three.mp4"]
    assert {row["caption"] for row in rows} == {"red blobs", "green blobs", "blue blobs"}
    assert {(row["licence"], row["consent"]) for row in rows} == {("CC0-1.0", "synthetic")}
    assert {len(row["source_digest"]) for row in rows} == {64}
    assert {(row["num_frames"], row["height_px"], row["width_px"], row["fps"]) for row in rows} == {(4, 16, 24, 8.0)}


def test_samples_carry_the_scores_that_a_model_may_be_conditioned_on(
    encode: Run, index_of: Rows, run_component: Run, footage: Path, rows_of: Rows
) -> None:
    clips = {row["clip_id"]: row for row in rows_of(run_component("curate.split", videos_uri=footage).clips_uri)}
    for row in index_of(encode()):
        clip = clips[row["clip_id"]]
        assert row["clarity"] == pytest.approx(1 - clip["blur"])
        assert (row["motion"], row["aesthetic"]) == (clip["motion"], clip["aesthetic"])
        # curate.filter gave it.
        assert 1 <= row["suitability"] <= 5


def test_equal_footage_gives_equal_shards_and_index(encode: Run, deployment: Settings) -> None:
    def everything() -> dict[str, bytes]:
        outputs = encode(force=True)
        dataset = Path(outputs.dataset_uri.removeprefix("file://"))
        work = dataset.parents[2].parent
        shards = {str(path.relative_to(work)): path.read_bytes() for path in work.glob("items/**/shard.tar")}
        return shards | {"index": (dataset / "index.parquet").read_bytes()}

    first = everything()
    assert len(first) == 3
    assert everything() == first


def test_another_split_ratio_leaves_the_shards_alone(encode: Run, index_of: Rows) -> None:
    shards = [{row["shard"] for row in index_of(encode(val_ratio=ratio))} for ratio in (0.2, 0.6)]
    assert shards[0] == shards[1]


def test_the_contact_sheet_shows_training_samples(encode: Run) -> None:
    with Image.open(encode().contact_sheet_uri.removeprefix("file://")) as sheet:
        assert sheet.width > 4 * 24
        assert len(sheet.getcolors(1 << 24) or ()) > 100


def test_fewer_than_two_usable_clips_are_refused(encode: Run) -> None:
    with pytest.raises(InputError, match=r"at least 2 clips must last 12\.5 s .* got 0 of 4 kept clips"):
        encode(num_frames=100)


def test_videos_that_changed_since_the_split_are_refused(run_component: Run, footage: Path) -> None:
    split = run_component("curate.split", videos_uri=footage)
    (footage / "one.mp4").write_bytes((footage / "one.mp4").read_bytes() + b"\0\0\0\x08free")
    with pytest.raises(InputError, match=r"one\.mp4 differs from what clips_uri describes"):
        run_component("curate.encode", clips_uri=split.clips_uri, videos_uri=footage, num_frames=4)
