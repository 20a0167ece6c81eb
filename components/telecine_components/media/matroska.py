"""The outermost elements of a Matroska or WebM file (EBML: RFC 8794), which say whether it ends where it should.

Its duration cannot say that: the last picture may stand for long, and its block need not say for how long (RFC 9559).
"""

from pathlib import Path
from typing import NamedTuple

_SEGMENT = 0x18538067
_MOST_ID_BYTES, _MOST_SIZE_BYTES = 4, 8


class _Element(NamedTuple):
    """The id with the marker in it, as it is always written, bytes until the content, and bytes of the content."""

    id: int
    begin: int
    length: int


def is_whole(path: Path) -> bool:
    """Whether elements follow each other until the segment ends, within the file; no for one that does not say where
    it ends, such as a live stream.
    """
    place, end, is_inside = 0, path.stat().st_size, False
    with path.open("rb") as file:
        while place < end:
            file.seek(place)
            element = _element(file.read(_MOST_ID_BYTES + _MOST_SIZE_BYTES))
            if element is None or place + element.begin + element.length > end:
                return False
            place += element.begin
            if element.id == _SEGMENT:
                end, is_inside = place + element.length, True
            else:
                place += element.length
    return is_inside and place == end


def _element(data: bytes) -> _Element | None:
    """What begins here; None where nothing can, or where the length is not known."""
    num_id = _num_bytes(data[:1])
    num_size = _num_bytes(data[num_id : num_id + 1])
    if num_id > _MOST_ID_BYTES or num_size > _MOST_SIZE_BYTES:
        return None
    unknown = (1 << 7 * num_size) - 1
    length = int.from_bytes(data[num_id : num_id + num_size], "big") & unknown
    return None if length == unknown else _Element(int.from_bytes(data[:num_id], "big"), num_id + num_size, length)


def _num_bytes(first: bytes) -> int:
    """As many as the first byte has leading zeros, and one; more than there can be where there is none."""
    return 9 - int.from_bytes(first, "big").bit_length()
