"""NAL units of H.264 and HEVC: what kind of picture a packet holds, and parameter sets of two encoders in one track.

An mp4 has its H.264 parameter sets in a record (avcC, ISO/IEC 14496-15, 5.3.3.1), and its units behind their lengths.
Encoders and transport streams write both behind start codes (ITU-T H.264, annex B). The record may hold several
sequence parameter sets; a picture's slices say which one is theirs, so parts that different encoders made play in one
track if their sets have different ids, and each part begins with an IDR picture, where alone the set may change.
"""

import re
from collections.abc import Iterable, Sequence

H264_IDR, H264_SPS, H264_PPS = 5, 7, 8
HEVC_RANDOM_ACCESS = range(16, 22)
HEVC_SETS = range(32, 35)
MAX_SETS = 32
_START_CODE = re.compile(rb"\x00\x00+\x01")
_LENGTH_BYTES = 4
_SPS_ID_BYTE, _PPS_ID_BYTE = 4, 1
"""Where the id begins: after the unit's header, and in an SPS after profile, constraints and level."""


def is_record(extradata: bytes) -> bool:
    """Whether a stream keeps its parameter sets in a record and its units behind lengths."""
    return extradata[:1] == b"\x01"


def units(data: bytes, *, sized: bool) -> list[bytes]:
    """The units of a packet: behind lengths of four bytes, or behind start codes."""
    if not sized:
        return [unit for unit in _START_CODE.split(data) if unit]
    found, place = [], 0
    while place + _LENGTH_BYTES <= len(data):
        end = place + _LENGTH_BYTES + int.from_bytes(data[place : place + _LENGTH_BYTES], "big")
        found.append(data[place + _LENGTH_BYTES : end])
        place = end
    return [unit for unit in found if unit]


def sized(found: Iterable[bytes]) -> bytes:
    """Units behind their lengths."""
    return b"".join(len(unit).to_bytes(_LENGTH_BYTES, "big") + unit for unit in found)


def h264_kind(unit: bytes) -> int:
    """Type of an H.264 unit."""
    return unit[0] & 31


def hevc_kind(unit: bytes) -> int:
    """Type of an HEVC unit."""
    return unit[0] >> 1 & 63


def parameter_sets(extradata: bytes) -> list[bytes]:
    """The H.264 SPS and PPS units that a stream's header holds.

    Raises:
        ValueError: a record that ends early, or lengths of other than four bytes.
    """
    if not is_record(extradata):
        return [unit for unit in units(extradata, sized=False) if h264_kind(unit) in (H264_SPS, H264_PPS)]
    if extradata[4] & 3 != _LENGTH_BYTES - 1:
        raise ValueError("nal: units must lie behind lengths of four bytes")
    return [unit for group in _record_sets(extradata)[:2] for unit in group]


def set_ids(found: Iterable[bytes]) -> set[int]:
    """Ids that SPS and PPS units take; other units take none."""
    place = {H264_SPS: _SPS_ID_BYTE, H264_PPS: _PPS_ID_BYTE}
    return {_exp_golomb(unit, place[h264_kind(unit)]) for unit in found if h264_kind(unit) in place}


def with_sets(extradata: bytes, more: Sequence[bytes]) -> bytes:
    """The stream's header with more SPS and PPS units in it."""
    if not is_record(extradata):
        return extradata + b"".join(b"\0\0\0\1" + unit for unit in more)
    sps, pps, rest = _record_sets(extradata)
    sps += [unit for unit in more if h264_kind(unit) == H264_SPS]
    pps += [unit for unit in more if h264_kind(unit) == H264_PPS]
    lists = (bytes([0xE0 | len(sps)]) + _listed(sps), bytes([len(pps)]) + _listed(pps))
    return extradata[:5] + b"".join(lists) + rest


def _record_sets(record: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """SPS units, PPS units, and what follows them in a record."""
    sps, place = _read_list(record, 6, record[5] & 31)
    pps, place = _read_list(record, place + 1, record[place])
    return sps, pps, record[place:]


def _read_list(record: bytes, place: int, number: int) -> tuple[list[bytes], int]:
    found = []
    for _ in range(number):
        end = place + 2 + int.from_bytes(record[place : place + 2], "big")
        if end > len(record):
            raise ValueError("nal: a record of parameter sets ends early")
        found.append(record[place + 2 : end])
        place = end
    return found, place


def _listed(found: Iterable[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in found)


def _exp_golomb(unit: bytes, place: int) -> int:
    """The unsigned number that begins at a byte (ITU-T H.264, 9.1); ids are small enough to lie in four bytes."""
    bits = f"{int.from_bytes(unit[place : place + 4].ljust(4, bytes(1)), 'big'):032b}"
    zeros = bits.index("1")
    return int(bits[zeros : 2 * zeros + 1], 2) - 1
