"""One clip in the making: packets copied from a film, frames encoded beside them, and the mp4 that both become."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from telecine_components.media import nal
from telecine_components.media.decode import FALLBACK_FPS
from telecine_components.media.orientation import matrix_of
from telecine_components.media.packets import Run
from telecine_components.media.planes import levels_of

JOINED_FORMATS = frozenset({"yuv420p", "yuvj420p"})
"""What x264 encodes as it is, so that encoded and copied parts of one track are alike."""
JOINED_PROFILES = {"Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high"}
"""Profiles of films that can be joined with what x264 encodes, and what it then encodes in. Pictures of a lossless film
(High 4:4:4 Predictive) come out wrong behind such a part."""
_MUXER = {"fflags": "+bitexact", "movflags": "+faststart"}


class Sample(NamedTuple):
    """A coded picture, and when it is shown in the film's time base."""

    data: bytes
    stamp: int
    is_keyframe: bool


@dataclasses.dataclass(frozen=True)
class Encode:
    """Frames of a clip that are to be encoded, by number as shown."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Film:
    """What clips take from the stream that they are cut from.

    Attributes:
        set_id: an id that no H.264 parameter set of the stream has.
    """

    stream: VideoStream
    time_base: Fraction
    set_id: int

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel over its height, by the stream or, where that does not say, by its container."""
        return self.stream.sample_aspect_ratio

    @property
    def rate(self) -> Fraction:
        """Frames per second, on the average."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(FALLBACK_FPS)


class ClipFile:
    """Takes what its parts are made of, in the order in which a film gives it.

    Args:
        parts: in the order of time; runs are copied.
        length_s: from the first frame to the end of the last.
        crf, preset: of x264.

    Attributes:
        is_refused: whether the encoder or the mp4 does not take what it is given; nothing more is done then.
        is_written: whether the file is there.
    """

    def __init__(
        self, path: Path, parts: Sequence[Run | Encode], film: Film, length_s: float, *, crf: int, preset: str
    ) -> None:
        self._path, self._film, self._length_s = path, film, length_s
        self.is_refused = self.is_written = False
        self._options = {"crf": str(crf), "preset": preset}
        self._is_joined = any(isinstance(part, Run) for part in parts)
        self._pieces = [_Copied(part) if isinstance(part, Run) else self._encoded(part) for part in parts]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.is_refused and all(piece.is_full for piece in self._pieces)

    def copy(self, place: int, number: int, packet: "av.Packet[VideoStream]") -> None:
        """Take a packet, at its place in the order of decoding, which holds the frame of that number."""
        for piece in self._pieces:
            if isinstance(piece, _Copied):
                piece.take(place, number, packet)

    def encode(self, number: int, stamp: int, frame: av.VideoFrame) -> None:
        """Take a frame, which is shown at ``stamp`` in the film's time base."""
        with self._refusals():
            for piece in self._pieces:
                if isinstance(piece, _Encoded):
                    piece.take(number, stamp, frame)

    def write(self) -> None:
        """Write the file; the parts have to be whole."""
        with self._refusals():
            self._write()
            self.is_written = True
        if self.is_refused:
            self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # a full disk, say, is no fault of the film
                raise
            self.is_refused = True

    def _write(self) -> None:
        with av.open(str(self._path), "w", format="mp4", options=_MUXER) as out:
            stream = self._joined_stream(out) if self._is_joined else self._encoded_stream(out)
            for packet in _timed(self._samples(), round(self._length_s / self._film.time_base)):
                packet.stream, packet.time_base = stream, self._film.time_base
                out.mux(packet)

    def _encoded(self, part: Encode) -> "_Encoded":
        profile = self._film.stream.codec_context.profile or ""
        joined = {"profile": JOINED_PROFILES[profile]} if self._is_joined else {}
        return _Encoded(part, self._film, self._options | joined, self._film.set_id if self._is_joined else 0)

    def _joined_stream(self, out: OutputContainer) -> VideoStream:
        stream = out.add_stream_from_template(self._film.stream, opaque=True)
        context = stream.codec_context
        if self._film.pixel_aspect:
            context.sample_aspect_ratio = self._film.pixel_aspect
        if context.name == "hevc":
            context.codec_tag = "hvc1"  # what Apple's players want
        sets = [unit for piece in self._pieces if isinstance(piece, _Encoded) for unit in piece.parameter_sets]
        if sets:
            context.extradata = nal.with_sets(context.extradata or b"", list(dict.fromkeys(sets)))
        return stream

    def _encoded_stream(self, out: OutputContainer) -> VideoStream:
        piece = self._pieces[0]
        assert isinstance(piece, _Encoded)
        stream = out.add_stream("libx264", rate=self._film.rate)
        piece.set_up(stream.codec_context)
        stream.set_display_matrix(piece.matrix)
        return stream

    def _samples(self) -> list[Sample]:
        in_record = self._is_joined and nal.is_record(self._film.stream.codec_context.extradata or b"")
        return [
            _behind_lengths(sample) if in_record and isinstance(piece, _Encoded) else sample
            for piece in self._pieces
            for sample in piece.samples
        ]


class _Copied:
    def __init__(self, run: Run) -> None:
        self._run = run
        self.samples: list[Sample] = []

    @property
    def is_full(self) -> bool:
        return len(self.samples) == self._run.end - self._run.start

    def take(self, place: int, number: int, packet: "av.Packet[VideoStream]") -> None:
        if self._run.first <= place < self._run.stop and number >= self._run.start:
            self.samples.append(_sample(packet))


class _Encoded:
    """x264 on one thread and without macroblock-tree rate control, so that equal frames give equal bytes; see
    :func:`telecine_components.media.encode.write_mp4`.
    """

    def __init__(self, part: Encode, film: Film, options: dict[str, str], set_id: int) -> None:
        self._part, self._film = part, film
        self._options = options | {"threads": "1", "x264-params": f"mbtree=0:sps-id={set_id}"}
        self._context: VideoCodecContext | None = None
        self._num_seen = 0
        self._format, self._size = "yuv420p", (0, 0)
        self.matrix: list[int] | None = None
        self.samples: list[Sample] = []

    @property
    def is_full(self) -> bool:
        return self._num_seen == self._part.end - self._part.start

    @property
    def parameter_sets(self) -> list[bytes]:
        assert self._context is not None
        return nal.parameter_sets(self._context.extradata or b"")

    def take(self, number: int, stamp: int, frame: av.VideoFrame) -> None:
        if not self._part.start <= number < self._part.end:
            return
        if self._context is None:
            self._open(frame)
        assert self._context is not None
        picture = _picture(frame, *self._size, self._format)
        picture.pts, picture.time_base = stamp, self._film.time_base
        picture.pict_type = av.video.frame.PictureType.NONE  # x264 chooses; the film's choice is no order
        self._keep(self._context.encode(picture))
        self._num_seen += 1
        if self.is_full:
            self._keep(self._context.encode(None))

    def _keep(self, packets: "Sequence[av.Packet[VideoStream]]") -> None:
        self.samples += [_sample(packet) for packet in packets]

    def _open(self, frame: av.VideoFrame) -> None:
        self._format = frame.format.name if frame.format.name in JOINED_FORMATS else "yuv420p"
        self._size = frame.width + frame.width % 2, frame.height + frame.height % 2
        self.matrix = matrix_of(frame)
        self._context = av.CodecContext.create("libx264", "w")
        self.set_up(self._context)
        self._context.open()

    def set_up(self, context: VideoCodecContext) -> None:
        """Make an encoder's context that of this part."""
        source = self._film.stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = self._format
        context.time_base, context.framerate = self._film.time_base, self._film.rate
        context.thread_count = 1
        context.flags |= Flags.global_header
        context.options = dict(self._options)
        if self._film.pixel_aspect:
            context.sample_aspect_ratio = self._film.pixel_aspect
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        is_rgb = source.format is not None and source.format.is_rgb
        context.colorspace = Colorspace.ITU601 if is_rgb else source.colorspace
        context.color_range = ColorRange.MPEG if is_rgb else source.color_range


def _picture(frame: av.VideoFrame, width: int, height: int, pix_fmt: str) -> av.VideoFrame:
    """A frame in the encoder's format and in its own range of levels, RGB in that of video.

    4:2:0 needs even sizes, so an odd side grows by its last row or column.
    """
    if (frame.width, frame.height) == (width, height) and frame.format.name == pix_fmt:
        return frame
    levels = levels_of(frame)
    if (frame.width, frame.height) != (width, height):
        planes = frame.reformat(format="yuv444p", dst_color_range=levels).to_ndarray()
        grown = np.pad(planes, ((0, 0), (0, height - frame.height), (0, width - frame.width)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grown), format="yuv444p")
        frame.color_range = levels
    return frame.reformat(format=pix_fmt, dst_color_range=levels)


def _sample(packet: "av.Packet[VideoStream]") -> Sample:
    assert packet.pts is not None
    return Sample(bytes(packet), packet.pts, packet.is_keyframe)


def _behind_lengths(sample: Sample) -> Sample:
    """What an encoder wrote, as an mp4 has it."""
    return sample._replace(data=nal.sized(nal.units(sample.data, sized=False)))


def _timed(samples: Sequence[Sample], length: int) -> Iterator["av.Packet[av.stream.Stream]"]:
    """Packets with times from zero: when each is shown, when it is decoded at the latest, how long it lasts.

    The parts were made with different delays between decoding and showing. Packet ``i`` is decoded when frame
    ``i - delay`` is shown, with the one smallest delay that decodes no packet too late.
    """
    stamps = np.array([sample.stamp for sample in samples], np.int64)
    stamps -= stamps.min()
    shown = np.sort(stamps)
    lasts = np.diff(shown, append=max(length, int(shown[-1]) + 1))
    ranks = np.searchsorted(shown, stamps)
    delay = int((np.arange(len(samples)) - ranks).max())
    decoded = np.concatenate([lasts[0] * np.arange(-delay, 0), shown])
    for place, sample in enumerate(samples):
        packet = av.Packet(sample.data)
        packet.pts, packet.dts = int(stamps[place]), int(decoded[place])
        packet.duration = int(lasts[ranks[place]])
        packet.is_keyframe = sample.is_keyframe
        yield packet
