import json
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from telecine.errors import InputError
from telecine.settings import Settings
from telecine_components.curate.cut.buckets import bucket
from telecine_components.curate.cut.shards import packed
from telecine_components.media import clips
from telecine_components.media.decode import open_video
from telecine_components.media.shards import read_member

CUT = 40
Run = Callable[..., Any]
Rows = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def kept(run_component: Run, footage: Path) -> str:
    """Manifest of ``footage`` after split and filter: four clips kept."""
    split = run_component("curate.split", videos_uri=footage, max_clip_s=1.5)
    return str(run_component("curate.filter", clips_uri=split.clips_uri, min_side_px=32).clips_uri)


@pytest.fixture
def cut(run_component: Run, footage: Path, kept: str) -> Callable[..., Any]:
    return lambda **inputs: run_component("curate.cut", clips_uri=kept, videos_uri=footage, **inputs)


def _folder(outputs: Any) -> Path:
    return Path(outputs.shards_uri.removeprefix("file://"))


@pytest.mark.parametrize(
    ("width_px", "height_px", "num_frames", "folder"),
    [
        (1920, 1080, 255, "resolution_1080/aspect_ratio_16_9/frames_0_255"),
        (1080, 1920, 256, "resolution_1080/aspect_ratio_9_16/frames_256_511"),
        (1918, 1078, 511, "resolution_720/aspect_ratio_16_9/frames_256_511"),
        (1280, 720, 512, "resolution_720/aspect_ratio_16_9/frames_512_767"),
        (1278, 718, 1, "resolution_lt_720/aspect_ratio_16_9/frames_0_255"),
        (650, 1000, 1, "resolution_lt_720/aspect_ratio_9_16/frames_0_255"),
        (651, 1000, 1, "resolution_lt_720/aspect_ratio_3_4/frames_0_255"),
        (880, 1000, 1, "resolution_720/aspect_ratio_3_4/frames_0_255"),
        (881, 1000, 1, "resolution_720/aspect_ratio_1_1/frames_0_255"),
        (1160, 1000, 1, "resolution_720/aspect_ratio_1_1/frames_0_255"),
        (1161, 1000, 1, "resolution_720/aspect_ratio_4_3/frames_0_255"),
        (1550, 1000, 1, "resolution_720/aspect_ratio_4_3/frames_0_255"),
        (1551, 1000, 1, "resolution_720/aspect_ratio_16_9/frames_0_255"),
    ],
)
def test_a_clip_on_an_edge_is_in_the_bin_below(width_px: int, height_px: int, num_frames: int, folder: str) -> None:
    assert bucket(width_px, height_px, num_frames) == folder


def test_the_shards_hold_the_kept_clips_and_nothing_else(cut: Run, kept: str, rows_of: Rows) -> None:
    outputs = cut()
    wanted = {row["clip_id"]: row for row in rows_of(kept) if row["reason"] is None}
    index = rows_of(f"{outputs.shards_uri}/shards.parquet")
    assert sorted(row["clip_id"] for row in index) == sorted(wanted)
    assert (outputs.num_clips, outputs.num_shards) == (len(wanted), 1)
    found: dict[str, bytes] = {}
    for path in _folder(outputs).rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    assert set(found) == {f"{clip_id}.{kind}" for clip_id in wanted for kind in ("mp4", "json", "txt")}
    for row in index:
        assert row["shard"] == "resolution_lt_720/aspect_ratio_4_3/frames_0_255/000000.tar"
        assert (
            read_member(_folder(outputs) / row["shard"], row["offset"], row["length"]) == found[f"{row['clip_id']}.mp4"]
        )
        assert found[f"{row['clip_id']}.txt"].decode() == wanted[row["clip_id"]]["caption"]
        told = json.loads(found[f"{row['clip_id']}.json"])
        assert told["source_digest"] == wanted[row["clip_id"]]["source_digest"]
        assert told["stages"][-1]["name"] == "curate.cut"
        assert json.loads(told["stages"][-1]["settings"])["mode"] == "smart"
        assert (told["cut"], told["cut_start_frame"]) == (row["cut"], row["cut_start_frame"])


@pytest.mark.parametrize("slack", [0, 4])
def test_a_member_plays_the_frames_of_its_clip_within_what_may_be_trimmed_and_added(
    cut: Run, rows_of: Rows, tmp_path: Path, slack: int
) -> None:
    outputs = cut(max_trim_frames=slack, max_widen_frames=slack)
    for row in rows_of(f"{outputs.shards_uri}/shards.parquet"):
        film = tmp_path / "clip.mp4"
        film.write_bytes(read_member(_folder(outputs) / row["shard"], row["offset"], row["length"]))
        with open_video(film) as video:
            assert sum(1 for _ in video.frames()) == row["cut_end_frame"] - row["cut_start_frame"]
        assert abs(row["cut_start_frame"] - row["start_frame"]) <= slack
        assert 0 <= row["end_frame"] - row["cut_end_frame"] <= slack
        assert row["cut_start_frame"] >= row["shot_start_frame"]


def test_a_keyframe_between_a_cut_and_its_clip_begins_the_clip(cut: Run, footage: Path, rows_of: Rows) -> None:
    with av.open(str(footage / "day one" / "three.mp4")) as film:
        keys = {round(packet.pts * packet.time_base * 24) for packet in film.demux(video=0) if packet.is_keyframe}
    assert CUT in keys, "the encoder saw the cut"

    def begins(**inputs: Any) -> set[tuple[int, str]]:
        index = rows_of(f"{cut(**inputs).shards_uri}/shards.parquet")
        return {(row["cut_start_frame"], row["cut"]) for row in index if row["start_frame"] == CUT + 4}

    assert begins() == {(CUT, "copy")}
    assert begins(max_widen_frames=3) == {(CUT + 4, "encode")}


def test_equal_inputs_give_equal_shards(cut: Run) -> None:
    def everything() -> dict[str, bytes]:
        folder = _folder(cut(force=True))
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = everything()
    assert len(first) == 2
    assert everything() == first


def test_what_has_nothing_to_copy_gets_a_reason_and_the_rest_goes_on(cut: Run, kept: str, rows_of: Rows) -> None:
    outputs = cut(mode="copy_only")
    before, after = ({row["clip_id"]: row["reason"] for row in rows_of(uri)} for uri in (kept, outputs.clips_uri))
    assert set(before) == set(after)
    lost = {clip_id for clip_id in before if before[clip_id] != after[clip_id]}
    assert lost, "the footage has clips without a keyframe"
    assert {after[clip_id] for clip_id in lost} == {"not_copyable"}
    assert outputs.num_clips == outputs.num_copied == sum(reason is None for reason in after.values())


def test_a_clip_that_no_mp4_can_hold_is_one_row_and_its_film_goes_on(
    run_component: Run, rows_of: Rows, scene: Callable[..., Any], tmp_path: Path
) -> None:
    videos, stamps = tmp_path / "videos", [*range(30), *range(10**10, 10**10 + 30)]
    videos.mkdir()
    with av.open(str(videos / "years.mkv"), "w") as film:
        stream = film.add_stream("libx264", rate=24)
        stream.width, stream.height = 96, 72
        for stamp, picture in zip(stamps, scene(1, 60), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 24)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    split = run_component("curate.split", videos_uri=videos)
    outputs = run_component("curate.cut", clips_uri=split.clips_uri, videos_uri=videos)
    found = [(row["num_frames"], row["reason"]) for row in rows_of(outputs.clips_uri)]
    assert found == [(29, None), (1, "not_writable"), (30, None)]
    assert outputs.num_clips == 2


def test_what_leaves_nothing_to_cut_is_told_with_its_reasons(
    run_component: Run, kept: str, footage: Path, rows_of: Rows, tmp_path: Path
) -> None:
    rows = rows_of(kept)
    inside = [row | {"reason": None if row["begins_with"] == "clip" else "too_dark"} for row in rows]
    for name, given, complaint in (
        ("inside", inside, r"none of 2 kept clips could be cut with mode=copy_only \(2 not_copyable\); use mode=smart"),
        ("none", [row | {"reason": "too_dark"} for row in rows], "clips_uri must have a kept clip"),
    ):
        clips.write(tmp_path / f"{name}.parquet", given)
        with pytest.raises(InputError, match=complaint):
            run_component("curate.cut", clips_uri=tmp_path / f"{name}.parquet", videos_uri=footage, mode="copy_only")


def test_another_shard_size_cuts_nothing_anew(cut: Run, deployment: Settings) -> None:
    items = deployment.home / "store" / "work" / "curate.cut" / "items"
    first = cut()
    made = sorted(items.glob("*/commit.json"))
    assert len(made) == 2
    assert cut(shard_mib=1).shards_uri != first.shards_uri
    assert sorted(items.glob("*/commit.json")) == made


def test_lossless_parts_which_no_film_can_be_joined_with_are_refused(cut: Run) -> None:
    assert cut(crf=1).num_clips == 4
    with pytest.raises(InputError, match="crf must be at least 1, got 0"):
        cut(crf=0)


def test_a_changed_video_is_refused(cut: Run, footage: Path) -> None:
    (footage / "one.mp4").write_bytes((footage / "one.mp4").read_bytes() + b"\0\0\0\x08free")
    with pytest.raises(InputError, match=r"curate\.cut: one\.mp4 differs from what clips_uri describes"):
        cut()


def test_a_shard_is_no_larger_than_asked_unless_one_clip_is(tmp_path: Path) -> None:
    sizes = {"a": 4000, "b": 5000, "c": 30_000, "d": 100, "e": 100}
    files = {name: tmp_path / name for name in sizes}
    for name, size in sizes.items():
        files[name].write_bytes(bytes(size))
    rows: list[dict[str, Any]] = [
        {"clip_id": name, "caption": "", "bucket": "x" if name < "e" else "y"} for name in sizes
    ]
    shards = [(name, [row["clip_id"] for row in held]) for name, held in packed(rows[::-1], files, 20_480)]
    assert shards == [
        ("x/000000.tar", ["a", "b"]),
        ("x/000001.tar", ["c"]),
        ("x/000002.tar", ["d"]),
        ("y/000000.tar", ["e"]),
    ]
