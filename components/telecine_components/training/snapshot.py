"""Tensors copied into memory that already has the layout of a safetensors file, so that writing one is one stream.

The layout is that of https://github.com/huggingface/safetensors: eight bytes of header length, little-endian; a JSON
header padded with spaces to a multiple of eight bytes; the tensors' bytes, larger elements first, then by name. For
equal tensors the bytes are those of ``safetensors.torch.save_file``.

A file is written past the page cache where its file system can do so. The kernel's own copy of it, which nobody reads,
would cost a training beside it more than all the rest.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from telecine.errors import InputError

CHUNK_BYTES = 64 * 2**20
"""Written and hashed in turn; few, because after each Python's lock is taken from the steps again."""
BLOCK_BYTES = 4096
"""Past the page cache, memory, place in the file and length are multiples of a disk's block."""
_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""In the order in which the format ranks them; the last ones come first in a file."""
_RANKS = {dtype: rank for rank, dtype in enumerate(_NAMES)}


class Snapshot:
    """One file's worth of tensors. Its memory is used again as long as names, shapes and types stay the same."""

    def __init__(self) -> None:
        self._layout: tuple[bytes, dict[str, int]] = b"", {}
        self._header = b""
        self._num_bytes = 0
        self._blocks = torch.empty(0, dtype=torch.uint8)
        self._places: dict[str, Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._num_bytes

    def lay_out(self, tensors: Mapping[str, Tensor]) -> None:
        """Get ready for tensors of these names, shapes and types.

        Raises:
            InputError: for a tensor of a type that the file format has no name for.
        """
        self._layout = _layout(tensors)

    def take(self, tensors: Mapping[str, Tensor], ready: torch.cuda.Event | None = None) -> None:
        """Copy what was laid out, as it is now.

        Args:
            ready: when the tensors of a GPU have the values to be copied.
        """
        header, offsets = self._layout
        if header != self._header:
            self._allocate(header, offsets, tensors)
        with torch.no_grad(), _after(ready):
            for name, place in self._places.items():
                place.copy_(tensors[name], non_blocking=True)

    def write(self, path: Path) -> str:
        """Write the file and return the SHA-256 of its bytes."""
        digest, view = hashlib.sha256(), self._blocks.numpy().data
        with path.open("wb", buffering=0) as stream:
            _pass_cache(stream, wanted=True)
            for start in range(0, len(view), CHUNK_BYTES):
                end = start + CHUNK_BYTES
                _write(stream, view[start:end])
                digest.update(view[start : min(end, self._num_bytes)])
            stream.truncate(self._num_bytes)
        return digest.hexdigest()

    def _allocate(self, header: bytes, offsets: dict[str, int], tensors: Mapping[str, Tensor]) -> None:
        size = len(header) + sum(tensor.nbytes for tensor in tensors.values())
        pinned = any(tensor.is_cuda for tensor in tensors.values())
        self._blocks = _aligned(size, pinned=pinned)
        self._blocks[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        self._places = {}
        for name, offset in offsets.items():
            tensor, start = tensors[name], len(header) + offset
            part = self._blocks[start : start + tensor.nbytes]
            self._places[name] = part.view(tensor.dtype).view(tensor.shape)
        self._header, self._num_bytes = header, size


@contextlib.contextmanager
def _after(ready: torch.cuda.Event | None) -> Iterator[None]:
    """Give a GPU the block's work beside its other work, once an event has come, and wait for it."""
    if ready is None:
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_event(ready)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _aligned(num_bytes: int, *, pinned: bool) -> Tensor:
    """Whole blocks for as many bytes, in memory that begins with a block; zeros behind the bytes."""
    length = -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
    memory = torch.empty(length + BLOCK_BYTES, dtype=torch.uint8, pin_memory=pinned)
    blocks = memory[-memory.data_ptr() % BLOCK_BYTES :][:length]
    blocks[num_bytes:] = 0
    return blocks


def _pass_cache(stream: io.FileIO, *, wanted: bool) -> bool:
    """Have a file written past the page cache or through it; whether that changed anything.

    Some file systems refuse at once, others at the first write; through the cache all can be written.
    """
    flags = fcntl.fcntl(stream, fcntl.F_GETFL)
    direct = getattr(os, "O_DIRECT", 0)
    changed = flags | direct if wanted else flags & ~direct
    try:
        fcntl.fcntl(stream, fcntl.F_SETFL, changed)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return changed != flags


def _write(stream: io.FileIO, chunk: memoryview) -> None:
    """Write all of it; a file may take less than it was given."""
    written = 0
    while written < len(chunk):
        try:
            written += stream.write(chunk[written:])
        except OSError as error:
            if error.errno != errno.EINVAL or not _pass_cache(stream, wanted=False):
                raise


def _layout(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """The header, length and padding included, and where after it each tensor begins."""
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in _NAMES]
    if odd:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _NAMES)
        raise InputError(f"tensor {odd[0]} is of {tensors[odd[0]].dtype}, a checkpoint holds {known}; convert it")
    entries, offsets, end = {}, {}, 0
    for name in sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype], name)):
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        offsets[name] = start
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets
