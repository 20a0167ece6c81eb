"""Arrays out of shards, fast: files stay open, and a member is one read into the memory that the array then is.

A shard in a remote store is downloaded whole by whoever locates it, which a training does with all of its shards before
its first step, to compare their digests: every sample is read in every epoch, so ranges would move the same bytes in
many more requests.
"""

import collections
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine.errors import InputError

MAX_OPEN = 128
EMPTY_TEXT = "empty_text.npy"
"""File of a dataset folder with the token vectors of the caption "", which dropped captions become."""
_MAGIC_BYTES = 10
"""Of the .npy format, version 1.0: magic, version and the length of the header."""
_Header = tuple[np.dtype[np.generic], tuple[int, ...]]


class ShardReader:
    """Reads .npy members by offset and length. Threads may share one.

    Reads copy out of the page cache rather than mapping it: a file that was cut short is then an error with a name,
    where a mapping would end the process.

    Args:
        locate: local path of a shard, given its store path.
    """

    def __init__(self, locate: Callable[[str], Path]) -> None:
        self._locate = locate
        self._open: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._headers: dict[bytes, _Header] = {}
        self._lock = threading.Lock()

    def array(self, shard: str, offset: int, length: int) -> npt.NDArray[np.generic]:
        """The array at ``offset``, its memory the caller's own.

        Raises:
            InputError: no such shard, or other bytes than an array's there.
        """
        try:
            data = np.empty(length, dtype=np.uint8)
            self._read(shard, offset, data)
            return self._parsed(data)
        except (OSError, ValueError) as error:
            raise InputError(f"{shard}: {error}; encode the dataset again") from error

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _read(self, shard: str, offset: int, data: npt.NDArray[np.uint8]) -> None:
        # Under the lock, so that no other thread closes the file meanwhile.
        with self._lock:
            descriptor = self._descriptor(shard)
            done = 0
            while done < len(data) and (read := os.preadv(descriptor, [data.data[done:]], offset + done)):
                done += read
        if done < len(data):
            raise ValueError(f"it must hold {len(data)} bytes at {offset}, got {done}")

    def _descriptor(self, shard: str) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        found = os.open(self._locate(shard), os.O_RDONLY | os.O_CLOEXEC)
        self._open[shard] = found
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return found

    def _parsed(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        start = _MAGIC_BYTES + int.from_bytes(data[_MAGIC_BYTES - 2 : _MAGIC_BYTES].tobytes(), "little")
        header = data[:start].tobytes()
        if header not in self._headers:
            self._headers[header] = _parse(header)
        dtype, shape = self._headers[header]
        return data[start:].view(dtype).reshape(shape)


def _parse(header: bytes) -> _Header:
    """Type and shape of an array. A header is one of few, so parsing it once saves most of a small read."""
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"arrays must be of .npy version 1.0, got {version}")
    shape, is_fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if is_fortran_order or dtype.hasobject:
        raise ValueError(f"arrays must be plain numbers in C order, got {dtype}")
    return dtype, shape
