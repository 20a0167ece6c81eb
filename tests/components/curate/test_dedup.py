"""Copies are found whatever was done to them, distinct clips are kept, and one clip of each group survives."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from telecine.errors import InputError
from telecine_components.curate.dedup.duplicates import best_first, duplicates
from telecine_components.curate.dedup.semantic import semantic
from telecine_components.curate.dedup.spec import Inputs
from telecine_components.media import clips, embeddings
from telecine_components.media.decode import open_video
from telecine_components.media.descriptor import descriptor
from telecine_components.media.encode import write_mp4
from telecine_components.media.fingerprint import BLANK, FRAMES_PER_S, fingerprint
from telecine_components.media.planes import colour_picture, planes_of

Pixels = npt.NDArray[np.uint8]
Run = Callable[..., Any]
Rows = Callable[[str], list[dict[str, Any]]]
Draw = Callable[..., Pixels]

FPS = 24


def row(clip_id: str, prints: bytes, looks: npt.NDArray[np.float32], **columns: Any) -> dict[str, Any]:
    described = {"clip_id": clip_id, "shot_id": clip_id, "source": f"{clip_id}.mp4", "num_frames": 96}
    shape = {"start_s": 0.0, "end_s": 4.0, "width_px": 640, "height_px": 360, "bits_per_pixel": 0.1}
    return described | shape | {"fingerprint": prints, "descriptor": looks.tolist()} | columns


def measured(folder: Path, clip_id: str, frames: Pixels, *, crf: int = 18, fps: float = FPS) -> dict[str, Any]:
    """The row of a clip that is a whole file: coded, decoded and measured at the moments that curate.split takes."""
    path = folder / f"{clip_id}.mp4"
    write_mp4(path, frames, fps, crf=crf)
    prints, pictures = [], []
    with open_video(path) as video:
        for time_s, frame in video.frames():
            if time_s >= len(prints) / FRAMES_PER_S:
                luma, picture = colour_picture(planes_of(frame), 96, 54)
                prints.append(fingerprint(np.asarray(luma)[None]))
                pictures.append(np.asarray(picture))
    size = {"width_px": frames.shape[2], "height_px": frames.shape[1], "end_s": len(frames) / fps}
    return row(clip_id, b"".join(prints), descriptor(np.stack(pictures)), num_frames=len(frames), **size)


def marks(rows: list[dict[str, Any]], num_earlier: int = 0, **inputs: Any) -> dict[str, tuple[str, str]]:
    """(reason, clip kept instead) of each duplicate, by clip."""
    looks = np.array([one["descriptor"] for one in rows], np.float32)
    found = duplicates(rows, looks, looks, Inputs(clips_uri="unused", **inputs), num_earlier=num_earlier)
    ids = [one["clip_id"] for one in rows]
    return {ids[place]: (reason, ids[keeper]) for place, (reason, keeper) in found.items()}


def half_size(frames: Pixels) -> Pixels:
    num_frames, height, width, _ = frames.shape
    cut = frames[:, : height // 2 * 2, : width // 2 * 2]
    return cut.reshape(num_frames, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4)).astype(np.uint8)


def copies(folder: Path, frames: Pixels, fps: float) -> list[dict[str, Any]]:
    """What becomes of a film: coded badly at half the size, mirrored, without its ends, between bars, re-lit."""
    bars = frames.shape[1] // 16 * 2
    changed = {
        "small": half_size(frames),
        "mirrored": frames[:, :, ::-1],
        "without_head": frames[int(1.3 * fps) :],
        "without_tail": frames[: -int(1.1 * fps)],
        "letterboxed": np.pad(frames, ((0, 0), (bars, bars), (0, 0), (0, 0))),
        "dimmed": (frames * 0.8 + 12).astype(np.uint8),
        "slower": frames[::2],
    }
    crfs, rates = {"small": 35}, {"slower": fps / 2}
    return [
        measured(folder, name, np.ascontiguousarray(made), crf=crfs.get(name, 23), fps=rates.get(name, fps))
        | {"width_px": 100, "height_px": 50}
        for name, made in changed.items()
    ]


def blobs(num: int, seed: int = 0) -> list[dict[str, Any]]:
    """Clips with random frames and random looks."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(num, 177))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    return [
        row(f"clip{place:05d}", rng.bytes(8 * 8), vector)
        for place, vector in enumerate(looks.astype(np.float32).round(6))
    ]


def test_copies_of_a_drawn_film_are_found_and_other_films_are_kept(scene: Draw, tmp_path: Path) -> None:
    film = scene(1, 84)
    original = measured(tmp_path, "original", film) | {"width_px": 1000}
    again = original | {"clip_id": "same_frames", "shot_id": "of another file"}
    made = copies(tmp_path, film, FPS)
    others = [measured(tmp_path, f"other{seed}", scene(seed, 60, 1.5)) for seed in range(2, 8)]
    found = marks([*others, *made, again, original])
    assert found.pop("same_frames") == ("duplicate_exact", "original")
    assert found == {copy["clip_id"]: ("duplicate_perceptual", "original") for copy in made}


@pytest.mark.parametrize("name", ["carphone", "bikes"])
def test_copies_of_real_footage_are_found(real_clips: Path, tmp_path: Path, name: str) -> None:
    with open_video(real_clips / f"{name}.mp4") as video:
        shown = [frame.to_ndarray(format="rgb24") for (_, frame), _ in zip(video.frames(), range(75), strict=False)]
    film, fps = np.stack(shown), 25.0
    if name == "bikes":
        film = half_size(film)
    original = measured(tmp_path, "original", film, fps=fps) | {"width_px": 1000}
    made = copies(tmp_path, film, fps)
    assert marks([*made, original]).keys() == {copy["clip_id"] for copy in made}


def test_what_is_kept_does_not_depend_on_the_order_of_the_rows(scene: Draw, tmp_path: Path) -> None:
    rows = copies(tmp_path, scene(1, 84), FPS) + blobs(20) + blobs(20)[:5]
    rows = [one | {"clip_id": f"{place:03d}"} for place, one in enumerate(rows)]
    found = marks(rows)
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311 (an order, no secret)
        assert marks(shuffled) == found
    assert not {keeper for _, keeper in found.values()} & found.keys()
    assert len(found) > 5 + 3


def test_without_tolerance_only_the_same_frames_go() -> None:
    one = blobs(1)[0]
    near = np.array(one["descriptor"], np.float32) + np.float32(1e-4)
    alike = one | {"clip_id": "alike", "shot_id": "alike", "descriptor": (near / np.linalg.norm(near)).tolist()}
    same = one | {"clip_id": "same", "shot_id": "same"}
    assert marks([one, alike, same], max_bits=0, epsilon=0) == {"same": ("duplicate_exact", "clip00000")}
    unseen = alike | {"fingerprint": one["fingerprint"][::-1]}
    assert marks([one, unseen], epsilon=0) == {}
    assert marks([one, unseen]) == {"clip00000": ("duplicate_semantic", "alike")}


def test_the_best_is_kept_by_size_then_rate_then_length_then_id() -> None:
    worst = {"width_px": 640, "height_px": 360, "bits_per_pixel": None, "start_s": 0.0, "end_s": 2.0, "clip_id": "b"}
    order = [
        worst | {"width_px": 1280},
        worst | {"bits_per_pixel": 0.2},
        worst | {"bits_per_pixel": 0.1, "end_s": 1.0},
        worst | {"end_s": 3.0},
        worst | {"clip_id": "a"},
        worst,
    ]
    assert sorted(reversed(order), key=best_first) == order


def test_clips_of_one_shot_are_no_copies_of_each_other() -> None:
    first = blobs(1)[0]
    second = first | {"clip_id": "second", "num_frames": 95}
    assert marks([first, second]) == {}
    assert marks([first, second | {"shot_id": "elsewhere"}]) != {}


def alike(num: int) -> list[dict[str, Any]]:
    """Clips with random frames that look the same to the descriptor."""
    rows = blobs(num)
    return [one | {"descriptor": rows[0]["descriptor"]} for one in rows]


def test_frames_that_show_nothing_connect_nothing() -> None:
    rows = [one | {"fingerprint": BLANK * 8 + one["fingerprint"]} for one in alike(30)]
    rows += [
        one | {"clip_id": f"dark{place}", "fingerprint": BLANK * (9 + place)} for place, one in enumerate(alike(3))
    ]
    assert marks(rows, epsilon=0) == {}


def test_a_title_that_many_clips_show_connects_none_of_them() -> None:
    title = np.random.default_rng(5).bytes(8) * 8
    titled = [one | {"fingerprint": title + one["fingerprint"]} for one in alike(250)]
    assert marks(titled, epsilon=0) == {}
    assert len(marks(titled[:10], epsilon=0)) == 9


def test_plain_pictures_with_one_hash_and_other_looks_are_no_copies() -> None:
    first, second = blobs(2)
    assert marks([first, second | {"fingerprint": first["fingerprint"]}]) == {}


def test_a_copy_needs_half_of_the_shorter_clip_and_not_of_the_longer() -> None:
    long, other = blobs(2)
    half = long["fingerprint"][:32] + other["fingerprint"][:32]
    third = long["fingerprint"][:24] + other["fingerprint"][:40]
    looks = {"descriptor": long["descriptor"], "end_s": 3.0}
    assert marks([long, other | looks | {"fingerprint": half}], epsilon=0).keys() == {other["clip_id"]}
    assert marks([long, other | looks | {"fingerprint": third}], epsilon=0) == {}
    assert marks([long, other | looks | {"fingerprint": half[:32]}], epsilon=0).keys() == {other["clip_id"]}
    better = other | looks | {"fingerprint": half[:24], "width_px": 1280}
    assert marks([long, better], epsilon=0).keys() == {long["clip_id"]}


def many_alike() -> tuple[npt.NDArray[np.float32], list[str]]:
    """Vectors [4500, 32] of which the last 500 look like the first ones, and the shot of each."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4500, 32))
    vectors[4000:] = vectors[:500] + rng.normal(0, 0.02, (500, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shots = [str(place) for place in range(4500)]
    return vectors, shots


def test_looking_the_same_is_found_across_many_clusters() -> None:
    vectors, shots = many_alike()
    keepers = semantic(vectors, shots, epsilon=0.01, seed=0, num_threads=1)
    assert (keepers[:4000] == np.arange(4000)).all()
    assert (keepers[4000:] == np.arange(500)).mean() > 0.97
    assert (semantic(vectors, shots, epsilon=0.01, seed=0, num_threads=1) == keepers).all()


def test_what_is_taken_stays_and_a_better_copy_of_it_goes(scene: Draw, tmp_path: Path) -> None:
    film = scene(1, 84)
    taken = measured(tmp_path, "taken", film) | {"width_px": 10, "shot_id": "one shot"}
    again = taken | {"clip_id": "again", "width_px": 1000}
    later = measured(tmp_path, "later", film[::-1].copy()) | {"width_px": 1000}
    looks_the_same = later | {"clip_id": "looks", "fingerprint": blobs(1)[0]["fingerprint"]}
    earlier = [taken, taken | {"clip_id": "taken too", "shot_id": "elsewhere"}]
    recut = measured(tmp_path, "recut", film[:60]) | {"shot_id": "one shot"}
    other = measured(tmp_path, "other", scene(2, 60, 1.5))
    found = marks([*earlier, other, again, later, looks_the_same, recut], num_earlier=2)
    assert found == {
        "again": ("duplicate_exact", "taken"),
        "later": ("duplicate_perceptual", "taken"),
        "looks": ("duplicate_semantic", "taken"),
        "recut": ("duplicate_perceptual", "taken"),
    }
    assert marks([*earlier, other], num_earlier=2) == {}
    assert marks([*earlier, *blobs(3), *blobs(3)], num_earlier=2) == marks([*blobs(3), *blobs(3)])


def test_taken_clips_are_found_across_many_clusters() -> None:
    vectors, shots = many_alike()
    keepers = semantic(vectors, shots, epsilon=0.01, seed=0, num_threads=1, begin=4200)
    assert (keepers[:4200] == np.arange(4200)).all()
    assert (keepers[4200:] != np.arange(4200, 4500)).mean() > 0.97


def manifest(folder: Path, *rows: dict[str, Any]) -> Path:
    clips.write(folder / "in.parquet", rows)
    return folder / "in.parquet"


def test_the_manifest_keeps_every_row_and_says_who_marked_it(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    one, two = blobs(2)
    rejected = one | {"clip_id": "rejected", "reason": "too_dark"}
    bad_file = {"clip_id": None, "source": "b.mp4", "reason": "empty file"}
    again = one | {"clip_id": "zz", "shot_id": "zz"}
    outputs = run_component("curate.dedup", clips_uri=manifest(tmp_path, again, bad_file, rejected, one, two))
    rows = rows_of(outputs.clips_uri)
    assert [found["reason"] for found in rows] == ["duplicate_exact", "empty file", "too_dark", None, None]
    assert [found["duplicate_of"] for found in rows] == ["clip00000", None, None, None, None]
    assert [len(found["stages"] or ()) for found in rows] == [1, 0, 0, 1, 1]
    assert rows[3]["stages"][0]["name"] == "curate.dedup"
    assert (outputs.num_clips, outputs.num_exact, outputs.num_perceptual, outputs.num_semantic) == (2, 1, 0, 0)


def test_copies_in_a_folder_are_found_from_what_split_measured(
    run_component: Run, rows_of: Rows, footage: Path, three_scenes: Pixels
) -> None:
    write_mp4(footage / "mirrored.mp4", np.ascontiguousarray(three_scenes[:, :, ::-1]), FPS)
    write_mp4(footage / "small.mp4", half_size(three_scenes), FPS, crf=30)
    split = run_component("curate.split", videos_uri=footage)
    rows = rows_of(run_component("curate.dedup", clips_uri=split.clips_uri).clips_uri)
    reasons = {
        name: [row["reason"] for row in rows if row["source"].endswith(name)] for name in ("small.mp4", "one.mp4")
    }
    assert set(reasons["small.mp4"]) == {"duplicate_perceptual"}
    assert "duplicate_perceptual" not in reasons["one.mp4"]
    pair = [row["reason"] for row in rows if row["source"] in ("mirrored.mp4", "day one/three.mp4")]
    assert pair.count(None) == pair.count("duplicate_perceptual") >= 3


def test_embeddings_say_what_looks_the_same(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    rows = blobs(3)
    vectors = np.array([[1, 0], [0, 1], [0.001, 1]], np.float32)
    embeddings.write(tmp_path / "embeddings.parquet", [one["clip_id"] for one in rows], vectors)
    given = {"clips_uri": manifest(tmp_path, *rows), "embeddings_uri": tmp_path / "embeddings.parquet"}
    outputs = run_component("curate.dedup", **given)
    assert [found["duplicate_of"] for found in rows_of(outputs.clips_uri)] == [None, None, "clip00001"]
    embeddings.write(tmp_path / "embeddings.parquet", ["clip00000", "clip00001"], vectors[:2])
    with pytest.raises(InputError, match="1 of 3 are missing, clip00002 first; run curate.embed"):
        run_component("curate.dedup", **given)


def test_footage_of_two_nights_is_compared(
    run_component: Run, rows_of: Rows, footage: Path, three_scenes: Pixels, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    write_mp4(tmp_path / "second" / "mirrored.mp4", np.ascontiguousarray(three_scenes[:, :, ::-1]), FPS, crf=20)
    (tmp_path / "second" / "again.mp4").write_bytes((footage / "one.mp4").read_bytes())
    first, second = (
        run_component("curate.split", videos_uri=each).clips_uri for each in (footage, tmp_path / "second")
    )
    alone = run_component("curate.dedup", clips_uri=second)
    assert (alone.num_clips, alone.num_earlier) == (4, 0)

    (tmp_path / "curated").mkdir()
    (tmp_path / "curated" / "first.parquet").write_bytes(Path(first.removeprefix("file://")).read_bytes())
    nothing_kept = [one | {"reason": "too_dark"} for one in blobs(3)]
    clips.write(tmp_path / "curated" / "none.parquet", nothing_kept, metadata={"made": "otherwise"})
    outputs = run_component("curate.dedup", clips_uri=second, earlier_uri=tmp_path / "curated")
    assert (outputs.num_clips, outputs.num_earlier, outputs.num_exact, outputs.num_perceptual) == (0, 4, 1, 3)
    assert run_component("curate.dedup", clips_uri=second, earlier_uri=first).clips_uri != outputs.clips_uri
    earlier = {row["clip_id"]: row["source"] for row in rows_of(first)}
    found = rows_of(outputs.clips_uri)
    assert len(found) == 4
    assert {(row["source"], earlier[row["duplicate_of"]]) for row in found} == {
        ("again.mp4", "one.mp4"),
        ("mirrored.mp4", "day one/three.mp4"),
    }


def test_a_folder_without_manifests_is_no_earlier_curation(run_component: Run, tmp_path: Path) -> None:
    given = {"clips_uri": manifest(tmp_path, *blobs(2)), "earlier_uri": tmp_path / "curated"}
    (tmp_path / "curated").mkdir()
    (tmp_path / "curated" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"earlier_uri must be a manifest or a folder of them .* has none"):
        run_component("curate.dedup", **given)
    embeddings.write(tmp_path / "curated" / "other.parquet", ["a"], np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="earlier_uri must have the columns of a clip manifest"):
        run_component("curate.dedup", **given)


def test_embeddings_of_each_manifest_lie_in_one_folder(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    rows = blobs(2)
    (tmp_path / "embeddings").mkdir()
    clips.write(tmp_path / "earlier.parquet", rows[:1])
    for one, vector in zip(rows, ([0.001, 1], [0, 1]), strict=True):
        path = tmp_path / "embeddings" / f"{one['clip_id']}.parquet"
        embeddings.write(path, [one["clip_id"]], np.array([vector], np.float32))
    given = {"clips_uri": manifest(tmp_path, rows[1]), "earlier_uri": tmp_path / "earlier.parquet"}
    assert run_component("curate.dedup", **given).num_semantic == 0
    outputs = run_component("curate.dedup", **given, embeddings_uri=tmp_path / "embeddings")
    assert [found["duplicate_of"] for found in rows_of(outputs.clips_uri)] == ["clip00000"]


@pytest.mark.parametrize("step", ["curate.dedup", "curate.balance"])
def test_a_manifest_without_a_kept_clip_stays_as_it_is(
    run_component: Run, rows_of: Rows, tmp_path: Path, step: str
) -> None:
    clips.write(tmp_path / "clips.parquet", [{"source": "a.mp4", "reason": "empty file"}])
    outputs = run_component(step, clips_uri=tmp_path / "clips.parquet")
    assert outputs.num_clips == 0
    assert [row["reason"] for row in rows_of(outputs.clips_uri)] == ["empty file"]


def test_a_manifest_without_fingerprints_is_refused(run_component: Run, tmp_path: Path) -> None:
    rows = [one | {"fingerprint": None} for one in blobs(2)]
    with pytest.raises(InputError, match=r"2 of 2 have none, clip00000 first; run curate\.split again"):
        run_component("curate.dedup", clips_uri=manifest(tmp_path, *rows))
