import tarfile
from pathlib import Path

import numpy as np
import pytest

from telecine_components.media.shards import ShardWriter, array_bytes, read_array, read_member


def _write(path: Path) -> dict[str, tuple[int, int]]:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    places = {}
    with ShardWriter(path) as shard:
        for key in ("0a", "0b"):
            files = {"frames.npy": array_bytes(frames), "txt": f"caption of {key}".encode(), "json": b"{}"}
            places |= {f"{key}.{extension}": tuple(place) for extension, place in shard.add(key, files).items()}
    return places


def test_every_member_lies_where_the_writer_said(tmp_path: Path) -> None:
    places = _write(tmp_path / "shard.tar")
    with tarfile.open(tmp_path / "shard.tar") as tar:
        assert {member.name: (member.offset_data, member.size) for member in tar} == places
    assert read_member(tmp_path / "shard.tar", *places["0b.txt"]) == b"caption of 0b"


def test_frames_are_read_back_by_offset(tmp_path: Path) -> None:
    places = _write(tmp_path / "shard.tar")
    frames = read_array(tmp_path / "shard.tar", *places["0b.frames.npy"])
    assert frames.dtype == np.uint8
    assert frames.tolist() == np.arange(72).reshape(2, 3, 4, 3).tolist()


def test_equal_samples_give_equal_bytes_without_times_or_owners(tmp_path: Path) -> None:
    _write(tmp_path / "a.tar")
    _write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}


def test_a_key_with_a_dot_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as shard, pytest.raises(ValueError, match="non-empty without"):
        shard.add("clip.1", {"txt": b""})


def test_a_tar_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    places = _write(tmp_path / "a.tar")
    offset, length = places["0b.frames.npy"]
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[: offset + 10])
    with pytest.raises(ValueError, match="encode it again"):
        read_array(tmp_path / "a.tar", offset, length)
