"""Decoding: the best video stream of a file, once, frame by frame, as bad data instead of decoder errors."""

import contextlib
import errno
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream

from telecine.errors import BadData, RetryLater
from telecine_components.media.matroska import is_whole
from telecine_components.media.orientation import orientation_of
from telecine_components.stages import alive

MACHINE_FAULTS = frozenset(
    {errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.ENOMEM, errno.ESTALE}
)
FALLBACK_FPS = 25.0
"""Rate of a file that gives neither a rate nor time stamps."""
COMPLETE_RATIO = 0.9
"""A file that gives fewer of the frames (or seconds) that its header promises is truncated; edit lists and
rounded durations take less than that."""
RESET_S = 1.0
"""Stamps that step back by more begin anew, as where files were joined; a picture that is less late is held back."""
MOST_PIXELS = 36_000_000
"""A picture of more is refused: one of 8K has 33 million, and a decoder holds many pictures at once."""
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,dv,h264,hevc,m4v,ivf,gif,nut"
"""Formats that hold a film themselves. Left out are playlists, which would make a decoder open whatever they name, and
guesses at text and pictures."""


class Video:
    """An open video file.

    Attributes:
        width_px, height_px: size as shown, so after the turn that the file asks for.
        orientation: the turn that the file asks for.
        fps: average rate; 0.0 where the file does not say.
        num_frames: to be shown, as the header says; 0 where it does not.
        first_stamp: when the first frame is shown that can be decoded, in the stream's time base; None where it has
            no stamp. Packets before it are of no use: a recording may begin amid a group of pictures.
        codec: name of the coding, such as "h264".
        coded_bytes: size of the stream's packets that :meth:`frames` has decoded so far.
    """

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self._path, self._container, self._stream = path, container, stream
        self._stream_frames = self._decode()
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        self.num_frames = _num_shown(container, stream)
        self.codec = stream.codec_context.codec.canonical_name
        # An AVI says when a picture is decoded; of those that are predicted from later ones, that says nothing.
        self._is_stamped = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        self.coded_bytes = 0
        self._decoded = 0
        with self._decoder_errors():
            self._head = list(itertools.islice(self._stream_frames, 1))
        if not self._head:
            raise BadData("no decodable frame")
        first = self._head[0]
        self.first_stamp = first.pts
        self.orientation = orientation_of(first)
        size = first.width, first.height
        self.width_px, self.height_px = size[::-1] if self.orientation.is_sideways else size

    def frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (seconds since the first frame, never falling; frame) in the order shown; can be walked once.

        Raises:
            BadData: the stream breaks, or ends before the header says it should.
        """
        time_s, clock = 0.0, _Clock(1 / (self.fps or FALLBACK_FPS))
        size = self._head[0].width, self._head[0].height
        for frame in itertools.chain(self._head, self._rest()):
            if (frame.width, frame.height) != size:
                was, now = "{}x{}".format(*size), f"{frame.width}x{frame.height}"
                raise BadData(f"changes from {was} to {now} pixels at frame {self._decoded}")
            if frame.is_corrupt:
                raise BadData(f"damaged at frame {self._decoded}")
            time_s = clock.at(frame.time if self._is_stamped else None)
            self._decoded += 1
            alive.beat()
            yield time_s, frame
        self._check_complete(time_s)

    def _rest(self) -> Iterator[av.VideoFrame]:
        with self._decoder_errors():
            yield from self._stream_frames

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self._stream):
            self.coded_bytes += packet.size
            yield from packet.decode()

    def _check_complete(self, last_s: float) -> None:
        """Whether nothing is missing behind the last frame, which may stand for long: where frames count, they do."""
        if self.num_frames:
            if self._decoded < COMPLETE_RATIO * self.num_frames:
                raise BadData(f"truncated after {self._decoded} of {self.num_frames} frames")
            return
        promised_s, begins_s = self._promised_s()
        last_s += max(0.0, (self._head[0].time or 0.0) - begins_s)
        if self.fps and last_s + 1 / self.fps < COMPLETE_RATIO * promised_s and not self._is_whole():
            raise BadData(f"truncated after {last_s:.2f} of {promised_s:.2f} s")

    def _is_whole(self) -> bool:
        """Whether the file says so otherwise than by how long it lasts."""
        return "matroska" in self._container.format.name and is_whole(self._path)

    def _promised_s(self) -> tuple[float, float]:
        """How long the stream lasts by its header, 0.0 where that does not say, and the stamp from which that counts.

        What lies between that stamp and the first frame cannot be decoded, or is nothing.
        """
        base = self._stream.time_base
        if self._stream.duration and base:
            return float(self._stream.duration * base), float((self._stream.start_time or 0) * base)
        # The file's length is the longest of its streams, and is this one's where there is no other. Matroska counts
        # it from zero, whenever the first frame is shown.
        alone = len(self._container.streams) == 1
        return ((self._container.duration or 0) / av.time_base if alone else 0.0), 0.0

    @contextlib.contextmanager
    def _decoder_errors(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise cause_of(error, f"undecodable after {self._decoded} frames") from error


class _Clock:
    """Seconds since the first frame, from stamps that may be missing, step back, or begin anew.

    Args:
        step_s: how long a frame lasts that nothing is said of.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._origin_s: float | None = None
        self._last_s: float | None = None

    def at(self, stamp_s: float | None) -> float:
        """The time of the next frame."""
        expected_s = 0.0 if self._last_s is None else self._last_s + self._step_s
        if stamp_s is None:
            time_s = expected_s
        else:
            last_s = self._last_s or 0.0
            if self._origin_s is None or stamp_s - self._origin_s < last_s - RESET_S:
                self._origin_s = stamp_s - expected_s
            time_s = max(stamp_s - self._origin_s, last_s)
        self._last_s = time_s
        return time_s


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and choose the video stream with the most pixels; audio, subtitles and cover pictures are left alone.

    Raises:
        BadData: empty, not a video, or without a video stream; or useless, as its header tells before anything is
            decoded: cut off, of more than MOST_PIXELS, or in HDR, which would have to be mapped to the tones of a
            screen before anything could be measured or learnt from it.
    """
    if path.stat().st_size == 0:
        raise BadData("empty file")
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise cause_of(error, "not a video") from error
    with container:
        stream = _largest_stream(container)
        _check_header(container, stream, path.stat().st_size)
        yield container, stream


@contextlib.contextmanager
def open_video(path: Path, *, num_threads: int = 1, deblock: bool = True) -> Iterator[Video]:
    """Open the stream that :func:`open_stream` chooses, to be decoded.

    Args:
        deblock: False leaves out the loop filter, a quarter of decoding H.264. Frames are then blocky, and since others
            are predicted from them they drift a little: good enough to look at from afar, and for nothing else.

    Raises:
        BadData: as there, or without one decodable frame.
    """
    with open_stream(path) as (container, stream):
        stream.codec_context.thread_count = num_threads
        stream.codec_context.thread_type = "AUTO"
        if not deblock:
            stream.codec_context.options = {"skip_loop_filter": "all"}
        yield Video(path, container, stream)


def with_ends(frames: Iterable[tuple[float, av.VideoFrame]]) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Each frame of :meth:`Video.frames` with its time and that of the next one; behind the last there is none."""
    held: tuple[float, av.VideoFrame] | None = None
    for time_s, frame in frames:
        if held is not None:
            yield held[0], time_s, held[1]
        held = time_s, frame
    if held is not None:
        yield held[0], math.inf, held[1]


def cause_of(error: av.FFmpegError, what: str) -> Exception:
    """Bad data, unless the machine failed to read it: then the same file may be fine a minute later."""
    if error.errno in MACHINE_FAULTS:
        return RetryLater(f"{error.filename or 'a video'} could not be read: {error.strerror}")
    return BadData(f"{what}: {error.strerror}")


def _check_header(container: InputContainer, stream: VideoStream, size: int) -> None:
    """Refuse what need not be decoded to be known as useless."""
    if stream.width * stream.height > MOST_PIXELS:
        raise BadData(f"pictures of {stream.width}x{stream.height} are larger than 8K")
    if stream.codec_context.color_trc in HDR:
        raise BadData(f"HDR ({HDR[ColorTrc(stream.codec_context.color_trc)]}): convert it to SDR first")
    # Only this family's index names every frame.
    entries = stream.index_entries if "mp4" in container.format.name else ()
    if entries and entries[-1].pos + entries[-1].size > size:
        whole = sum(entry.pos + entry.size <= size for entry in entries)
        if whole < COMPLETE_RATIO * len(entries):
            raise BadData(f"truncated after {whole} of {len(entries)} frames")


def _num_shown(container: InputContainer, stream: VideoStream) -> int:
    """Frames that a header promises to show; an edit list hides the others."""
    entries = stream.index_entries if stream.frames and "mp4" in container.format.name else ()
    return sum(not entry.is_discard for entry in entries) if entries else stream.frames


def _largest_stream(container: InputContainer) -> VideoStream:
    pictures = av.stream.Disposition.attached_pic
    videos = [s for s in container.streams.video if not s.disposition & pictures]
    known = [s for s in videos if s.codec_context is not None]
    if videos and not known:
        raise BadData("nothing here decodes its video")
    streams = [s for s in known if s.width and s.height]
    if not streams:
        raise BadData("no video stream")
    return max(streams, key=lambda stream: stream.width * stream.height)
