"""Shards: plain tars in WebDataset layout (key.extension), with the same bytes for the same members.

An index names each member by offset and length, so a reader needs no tar library and no scan.
"""

import io
import math
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt


class Member(NamedTuple):
    """Where the bytes of a member lie in its tar."""

    offset: int
    length: int


class ShardWriter:
    """Writes one tar; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._tar.close()

    def add(self, key: str, files: Mapping[str, bytes]) -> dict[str, Member]:
        """Append one sample: members ``<key>.<extension>``, which must follow one another for WebDataset readers.

        Raises:
            ValueError: ``key`` holds a dot or a slash, where WebDataset ends a key.
        """
        if not key or set(key) & set("./"):
            raise ValueError(f"shards: key must be non-empty without '.' and '/', got {key!r}")
        return {extension: self._append(f"{key}.{extension}", data) for extension, data in files.items()}

    def _append(self, name: str, data: bytes) -> Member:
        info = tarfile.TarInfo(name)  # mtime, uid and gid are 0, the names empty
        info.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(data))
        return Member(offset, len(data))


def tar_bytes(lengths: Iterable[int]) -> int:
    """Size of a tar with members of these sizes: a header each, blocks, and the zeros that end it."""
    blocks = sum(1 + math.ceil(length / tarfile.BLOCKSIZE) for length in lengths) + 2
    return math.ceil(blocks * tarfile.BLOCKSIZE / tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def read_member(path: Path, offset: int, length: int) -> bytes:
    """Bytes of one member.

    Raises:
        ValueError: the tar ends before the member does.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ValueError(f"shards: {path.name} must hold {length} bytes at {offset}, got {len(data)}; encode it again")
    return data


def array_bytes(array: npt.NDArray[np.generic]) -> bytes:
    """``array`` in the .npy format, without pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_array(path: Path, offset: int, length: int) -> npt.NDArray[np.uint8]:
    """The .npy member at ``offset`` of a tar, without pickle."""
    array: npt.NDArray[np.uint8] = np.lib.format.read_array(
        io.BytesIO(read_member(path, offset, length)), allow_pickle=False
    )
    return array
