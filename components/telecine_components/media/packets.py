"""The packets of a video without decoding it: which frame each holds, where decoding can begin, what can be copied.

Reading packets costs a hundredth of decoding them. Frames are numbered as they are shown; packets lie in the order in
which they are decoded, which differs where pictures are predicted from later ones.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from telecine_components.media import nal
from telecine_components.media.decode import open_stream, open_video
from telecine_components.stages import alive

TIMED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts"})
"""Containers that say when each packet is shown; in an AVI, say, the times are those of decoding."""
COPIED_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
"""What is copied into an mp4 as it is."""
_LENGTH_SIZE_BYTE = {"h264": 4, "hevc": 21}
"""Of the record in the stream's header: its two lowest bits are the bytes of a length, less one."""

Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Run:
    """Packets ``first`` to ``stop`` in the order of decoding, which hold frames ``start`` to ``end`` as shown.

    Packets among them that hold frames before ``start`` are not part of it: nothing in it needs them.
    """

    first: int
    stop: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True, eq=False)
class PacketIndex:
    """What the packets of a stream say.

    Attributes:
        shown: [P] number of the frame that each packet holds; -1 where it is not shown.
        stamps: [F] when each frame is shown, in ``time_base``.
        places: [F] which packet holds each frame.
        entries: [E] packets at which decoding can begin: IDR pictures of H.264, random access points of HEVC,
            keyframes of other codecs. Frames after an entry in the order shown need nothing before it.
        set_ids: ids that the H.264 parameter sets of the stream take.
        is_sized: whether pictures come out of the decoder as large as the header says; those that are to be cropped at
            the left do not.
    """

    time_base: Fraction
    shown: Ints
    stamps: Ints
    places: Ints
    entries: Ints
    set_ids: frozenset[int]
    is_sized: bool = True

    def time_s(self, frame: int) -> float:
        """Seconds from the first frame to this one."""
        return float((int(self.stamps[frame]) - int(self.stamps[0])) * self.time_base)

    def number_of(self, stamp: int | None) -> int:
        """The frame that is shown at ``stamp``; -1 where none is."""
        number = int(np.searchsorted(self.stamps, stamp)) if stamp is not None else len(self.stamps)
        return number if number < len(self.stamps) and self.stamps[number] == stamp else -1

    def copyable(self, start: int, end: int, *, latest_by: int | None = None) -> Run | None:
        """The longest run of packets within these frames that can be decoded without any other packet.

        Args:
            latest_by: of the runs that begin by this frame, the one that begins last is meant.
        """
        numbers = self.shown[self.entries]
        place = int(np.searchsorted(numbers, start))
        if latest_by is not None:
            place = max(place, int(np.searchsorted(numbers, latest_by, side="right")) - 1)
        if place == len(self.entries) or (begin := int(self.shown[first := int(self.entries[place])])) >= end:
            return None
        # Frames that are left out lie between them; a longer look could only find more of the same run.
        ahead = self.shown[first : first + 2 * (end - begin)]
        ours = ahead >= begin
        top = np.maximum.accumulate(np.where(ours, ahead, -1))
        complete = (top + 1 - begin == np.cumsum(ours)) & (np.cumsum(ahead < 0) == 0) & (top < end)
        last = int(np.flatnonzero(complete)[-1])
        return Run(first, first + last + 1, begin, int(top[last]) + 1)

    def to_decode(self, start: int, end: int) -> tuple[int, int]:
        """First and stop of the packets that have to be decoded to see these frames."""
        places = self.places[start:end]
        before = np.searchsorted(self.shown[self.entries], start, side="right") - 1
        return int(self.entries[before]) if before >= 0 else 0, int(places.max()) + 1


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator["av.Packet[VideoStream]"]:
    """The packets of a stream that hold something, in the order of decoding."""
    for packet in container.demux(stream):
        alive.beat()  # whoever walks them encodes between two of them
        if packet.size:
            yield packet


def index_of(path: Path) -> PacketIndex | None:
    """Read the packets of the video stream; None where they do not say which frame is which, or cannot be copied.

    Raises:
        BadData: as :func:`open_video`.
    """
    with open_video(path) as video:
        first, size = video.first_stamp, {video.width_px, video.height_px}
    with open_stream(path) as (container, stream):
        name, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
        if container.format.name not in TIMED_FORMATS or name not in COPIED_CODECS or not _is_plain(name, extradata):
            return None
        sized = nal.is_record(extradata)
        stamps: list[int] = []
        hidden, entries = [], []
        ids = nal.set_ids(nal.parameter_sets(extradata)) if name == "h264" else set()
        for place, packet in enumerate(packets_of(container, stream)):
            if packet.pts is None:
                return None
            stamps.append(packet.pts)
            if packet.is_discard:
                hidden.append(place)
            if packet.is_keyframe:
                units = nal.units(bytes(packet), sized=sized) if name in _LENGTH_SIZE_BYTE else []
                ids |= nal.set_ids(units) if name == "h264" else set()
                if name == "hevc" and not sized and _has_other_sets(units, extradata):
                    return None
                if _is_entry(name, units):
                    entries.append(place)
        time_base, is_sized = stream.time_base, size == {stream.width, stream.height}
    # A recording may begin amid a group of pictures: what comes before the first that can be decoded is never shown.
    hidden += [place for place, stamp in enumerate(stamps) if first is None or stamp < first]
    if time_base is None or len(set(stamps)) < len(stamps) or len(set(hidden)) == len(stamps):
        return None
    found = _index(time_base, np.array(stamps, np.int64), hidden, entries, frozenset(ids))
    return dataclasses.replace(found, is_sized=is_sized)


def _index(
    time_base: Fraction, stamps: Ints, hidden: list[int], entries: list[int], set_ids: frozenset[int]
) -> PacketIndex:
    visible = np.ones(len(stamps), np.bool_)
    visible[hidden] = False
    places = np.flatnonzero(visible)
    places = places[np.argsort(stamps[places])]
    shown = np.full(len(stamps), -1, np.int64)
    shown[places] = np.arange(len(places))
    # Behind a hidden one that comes first there is something to see; a later one would only break the order.
    entries = [each for each in entries if visible[each] or each < places.min()]
    return PacketIndex(
        time_base=time_base,
        shown=shown,
        stamps=stamps[places],
        places=places,
        entries=np.array(entries, np.int64),
        set_ids=set_ids,
    )


def _is_plain(codec: str, extradata: bytes) -> bool:
    """Whether units lie behind start codes or behind lengths of four bytes, where the codec has any."""
    place = _LENGTH_SIZE_BYTE.get(codec)
    if place is None or not nal.is_record(extradata):
        return True
    return len(extradata) > place and extradata[place] & 3 == 3


def _has_other_sets(units: Iterable[bytes], extradata: bytes) -> bool:
    """Whether HEVC parameter sets lie behind start codes that the header does not know: a copy would lose them."""
    known = {unit.rstrip(b"\0") for unit in nal.units(extradata, sized=False)}
    return any(nal.hevc_kind(unit) in nal.HEVC_SETS and unit.rstrip(b"\0") not in known for unit in units)


def _is_entry(codec: str, units: Iterable[bytes]) -> bool:
    if codec == "h264":
        return any(nal.h264_kind(unit) == nal.H264_IDR for unit in units)
    if codec == "hevc":
        return any(nal.hevc_kind(unit) in nal.HEVC_RANDOM_ACCESS for unit in units)
    return True
