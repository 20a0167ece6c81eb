"""Clips out of a film, as mp4 files: packets are copied where the codec allows it, and encoded only where it does not.

A copy has to begin where decoding can begin, and to end where no picture needs a later one. What a clip has before and
after the longest such run is encoded, and joined to it in one track ("smart cut"): the encoder's parameter sets take an
id that the film does not use and stand beside the film's in the track's header, so that every player that knows more
than one set per track, as the standard has it, plays both. Only 8-bit 4:2:0 H.264 is joined; of other films a clip is
copied whole or encoded whole. Sound is left out.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from telecine.errors import BadData
from telecine_components.media import nal
from telecine_components.media.clip_file import JOINED_FORMATS, JOINED_PROFILES, ClipFile, Encode, Film
from telecine_components.media.decode import cause_of, open_stream, open_video
from telecine_components.media.packets import PacketIndex, Run, index_of, packets_of

Mode = Literal["smart", "copy_only", "encode"]
Way = Literal["copy", "smart", "encode"]
Part = Run | Encode
Loss = Literal["not_copyable", "not_decodable", "not_writable"]
"""Why a clip has no file: ``copy_only`` found nothing to copy; its frames do not come; no encoder or mp4 takes them."""

_EXACT_S = 1e-4
"""Times of one frame, read twice, differ by rounding alone."""
_FALLBACK_TIME_BASE = Fraction(1, 90_000)


@dataclasses.dataclass(frozen=True)
class Span:
    """Frames ``start`` to ``end`` (exclusive) as shown, and the seconds from the film's first frame that they cover.

    The seconds are what the pass saw that chose the frames. Where a film's packets tell other times, its frames are
    counted by decoding it.

    Attributes:
        earliest: frame from which on the clip may begin sooner, where that saves encoding; ``start`` if not given.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    earliest: int | None = None


@dataclasses.dataclass(frozen=True)
class Cut:
    """What became of a span: the frames that its file holds, how many of them were encoded, and so which way."""

    start: int
    end: int
    num_encoded: int

    @property
    def way(self) -> Way:
        """``copy`` where nothing was encoded, ``encode`` where everything was, else ``smart``."""
        if not self.num_encoded:
            return "copy"
        return "encode" if self.num_encoded == self.end - self.start else "smart"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How to cut.

    Attributes:
        mode: ``smart``; ``copy_only``, which drops frames at both ends until the rest can be copied; or ``encode``.
        max_trim_frames: frames that ``smart`` may drop at either end instead of encoding them.
        crf, preset: of x264.
    """

    mode: Mode = "smart"
    max_trim_frames: int = 0
    crf: int = 18
    preset: str = "veryfast"


def cut(path: Path, spans: Sequence[Span], outputs: Sequence[Path], rule: Rule) -> list[Cut | Loss]:
    """Write a file per span, in one pass over the packets of the film.

    Args:
        spans: in the order of time; they may overlap.
        outputs: paths of the files to be.

    Returns:
        What became of each span, or why it has no file; one that has none costs the others nothing.

    Raises:
        BadData: as :func:`open_video`.
    """
    index = index_of(path)
    if index is not None and not all(_agree(index, span) for span in spans):
        index = None
    with open_stream(path) as (container, stream):
        free = set(range(nal.MAX_SETS)) - (index.set_ids if index is not None else set())
        film = Film(stream, stream.time_base or _FALLBACK_TIME_BASE, min(free, default=0))
        plans = [plan(index, span, rule, joinable=bool(free) and _is_joinable(film, index)) for span in spans]
        made = {
            number: ClipFile(
                outputs[number], parts, film, _length_s(index, spans[number], parts), crf=rule.crf, preset=rule.preset
            )
            for number, parts in enumerate(plans)
            if parts
        }
        wanted = [(clip, plans[number]) for number, clip in made.items()]
        for clip in _counted(path, film, wanted) if index is None else _walk(container, film, index, wanted):
            clip.write()
    return [_became(made.get(number), parts) for number, parts in enumerate(plans)]


def plan(index: PacketIndex | None, span: Span, rule: Rule, *, joinable: bool) -> list[Part]:
    """The parts of a clip in their order; none where ``copy_only`` finds nothing to copy.

    Args:
        index: of the film's packets; None where they tell nothing.
        joinable: whether encoded parts can stand beside copied ones.
    """
    run = None
    if index is not None and rule.mode != "encode":
        earliest = span.start if span.earliest is None else span.earliest
        run = index.copyable(earliest, span.end, latest_by=span.start)
    if rule.mode == "copy_only":
        return [] if run is None else [run]
    if run is None:
        return [Encode(span.start, span.end)]
    head, tail = Encode(min(span.start, run.start), run.start), Encode(run.end, span.end)
    encoded = [each for each in (head, tail) if each.end - each.start > rule.max_trim_frames]
    if encoded and not joinable:
        return [Encode(span.start, span.end)]
    return [part for part in (head, run, tail) if part is run or part in encoded]


def _agree(index: PacketIndex, span: Span) -> bool:
    """Whether the packets tell the same times of a span's frames as the pass that chose them saw."""
    if span.end > len(index.stamps) or abs(index.time_s(span.start) - span.start_s) > _EXACT_S:
        return False
    return span.end == len(index.stamps) or abs(index.time_s(span.end) - span.end_s) <= _EXACT_S


def _is_joinable(film: Film, index: PacketIndex | None) -> bool:
    """Whether encoded parts can have all that a track's header says of the film's pictures."""
    context = film.stream.codec_context
    return (
        index is not None
        and index.is_sized
        and context.name == "h264"
        and context.profile in JOINED_PROFILES
        and context.pix_fmt in JOINED_FORMATS
        and bool(context.extradata)
    )


def _length_s(index: PacketIndex | None, span: Span, parts: Sequence[Part]) -> float:
    start, end = parts[0].start, parts[-1].end
    start_s = span.start_s if index is None else index.time_s(start)
    return (span.end_s if index is None or end == span.end else index.time_s(end)) - start_s


def _became(clip: ClipFile | None, parts: Sequence[Part]) -> Cut | Loss:
    if clip is None:
        return "not_copyable"
    if not clip.is_written:
        return "not_writable" if clip.is_refused else "not_decodable"
    num_encoded = sum(part.end - part.start for part in parts if isinstance(part, Encode))
    return Cut(parts[0].start, parts[-1].end, num_encoded)


class _Queue:
    """The clips of a film, each with the place in the film at which it begins to be filled."""

    def __init__(self, clips: Iterable[tuple[int, ClipFile]]) -> None:
        self._waiting = collections.deque(sorted(clips, key=lambda each: each[0]))
        self._active: list[ClipFile] = []

    @property
    def is_done(self) -> bool:
        return not self._waiting and not self._active

    def active(self, place: int) -> list[ClipFile]:
        """The clips that may want what comes at this place."""
        while self._waiting and self._waiting[0][0] <= place:
            self._active.append(self._waiting.popleft()[1])
        return self._active

    def finished(self) -> list[ClipFile]:
        """The clips that have become whole; they leave, and so do those that cannot."""
        whole = [clip for clip in self._active if clip.is_whole]
        if whole or any(clip.is_refused for clip in self._active):
            self._active = [clip for clip in self._active if not (clip.is_whole or clip.is_refused)]
        return whole


def _walk(
    container: InputContainer, film: Film, index: PacketIndex, clips: Sequence[tuple[ClipFile, Sequence[Part]]]
) -> Iterator[ClipFile]:
    """Hand out packets, and frames of the stretches that have to be decoded; yield each clip that is whole."""
    queue = _Queue((min(_first_packet(index, part) for part in parts), clip) for clip, parts in clips)
    decoder = _Decoder(film.stream, _stretches(index, [part for _, parts in clips for part in parts]))
    try:
        for place, packet in enumerate(packets_of(container, film.stream)):
            for clip in queue.active(place):
                clip.copy(place, int(index.shown[place]), packet)
            for frame in decoder.frames(place, packet):
                number = index.number_of(frame.pts)
                for clip in queue.active(place):
                    clip.encode(number, frame.pts or 0, frame)
            yield from queue.finished()
            if queue.is_done:
                return
    except av.FFmpegError as error:
        _check_machine(error)


class _Decoder:
    """Decodes the stretches of a film that clips need; one that breaks gives no more frames."""

    def __init__(self, stream: VideoStream, stretches: "collections.deque[tuple[int, int]]") -> None:
        stream.codec_context.thread_count = 1
        self._stream, self._stretches, self._is_broken = stream, stretches, False

    def frames(self, place: int, packet: "av.Packet[VideoStream]") -> list[av.VideoFrame]:
        """What the packet at this place gives; all that is still to come where a stretch ends."""
        if not self._stretches or place < self._stretches[0][0]:
            return []
        found = self._decoded(packet)
        if place == self._stretches[0][1] - 1:
            found += self._decoded(None)
            self._stream.codec_context.flush_buffers()
            self._stretches.popleft()
            self._is_broken = False
        return found

    def _decoded(self, packet: "av.Packet[VideoStream] | None") -> list[av.VideoFrame]:
        if self._is_broken:
            return []
        try:
            return self._stream.decode(packet)
        except av.FFmpegError as error:
            _check_machine(error)
            self._is_broken = True
            return []


def _check_machine(error: av.FFmpegError) -> None:
    """Raise where it was the machine that failed, and not the film."""
    cause = cause_of(error, "undecodable where it is cut")
    if not isinstance(cause, BadData):
        raise cause from error


def _first_packet(index: PacketIndex, part: Part) -> int:
    return part.first if isinstance(part, Run) else index.to_decode(part.start, part.end)[0]


def _stretches(index: PacketIndex, parts: Iterable[Part]) -> "collections.deque[tuple[int, int]]":
    """First and stop of the packets that are decoded; none is decoded twice."""
    merged: collections.deque[tuple[int, int]] = collections.deque()
    for first, stop in sorted(index.to_decode(part.start, part.end) for part in parts if isinstance(part, Encode)):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((first, stop))
    return merged


def _counted(path: Path, film: Film, clips: Sequence[tuple[ClipFile, Sequence[Part]]]) -> Iterator[ClipFile]:
    """Decode the film from its first frame and number the frames as they come; yield each clip that is whole."""
    queue = _Queue((parts[0].start, clip) for clip, parts in clips)
    stamp = -1
    with contextlib.suppress(BadData), open_video(path) as video:
        for number, (time_s, frame) in enumerate(video.frames()):
            stamp = max(stamp + 1, round(time_s / film.time_base))  # frames of one time still come one after the other
            for clip in queue.active(number):
                clip.encode(number, stamp, frame)
            yield from queue.finished()
            if queue.is_done:
                return
