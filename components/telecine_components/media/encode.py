"""Encoding: frames, and sound if there is one, to an mp4 that browsers play, with the same bytes for the same input."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace

from telecine_components.media import colour

Pixels = npt.NDArray[np.uint8]

_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_SAMPLES = 1024
_SOUND_BITS_PER_S = 96_000


@dataclasses.dataclass(frozen=True, eq=False)
class Sound:
    """``samples`` in -1..1, float32 [channels, S] with one or two channels, at ``rate_hz``.

    Raises:
        ValueError: samples of another shape or type, or a rate that AAC does not have.
    """

    samples: npt.NDArray[np.float32]
    rate_hz: int

    def __post_init__(self) -> None:
        shape = self.samples.shape
        if self.samples.dtype != np.float32 or len(shape) != 2 or shape[0] not in (1, 2) or not shape[1]:
            raise ValueError(
                f"sound: samples must be float32 [1 or 2, S], S >= 1, got {self.samples.dtype} {list(shape)}"
            )
        if self.rate_hz not in _AAC_RATES_HZ:
            raise ValueError(f"sound: rate_hz must be one of {_AAC_RATES_HZ}, got {self.rate_hz}")


def write_mp4(
    path: Path, frames: Pixels, fps: float, *, crf: int = 18, preset: str = "fast", sound: Sound | None = None
) -> None:
    """Write frames (uint8 [F, H, W, 3], RGB, F >= 1) as H.264, yuv420p, BT.709, and sound as AAC.

    4:2:0 needs even sizes, so an odd side grows by its last row or column. One x264 thread, because with two the bytes
    differ; no macroblock-tree rate control, because with its AVX-512 code and B-frames five of twelve films differed
    between two encodings of the same pictures in one process, and without it none.

    Raises:
        ValueError: the sound's length is not that of the frames within one frame.
    """
    if sound is not None and abs(sound.samples.shape[1] / sound.rate_hz - len(frames) / fps) > 1 / fps:
        raise ValueError(
            f"write_mp4: sound must last as long as the frames, {len(frames) / fps:.3f} s, "
            f"got {sound.samples.shape[1] / sound.rate_hz:.3f} s"
        )
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": "mbtree=0"}
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        # Every stream must be there before the first packet, because the header names them all.
        heard = iter(()) if sound is None else _sound_packets(container, sound)
        pace = 0 if sound is None else int(sound.rate_hz / _AAC_SAMPLES / fps) + 1
        for picture in even:
            container.mux(stream.encode(_yuv_frame(picture)))
            container.mux(list(islice(heard, pace)))
        container.mux(stream.encode(None))
        container.mux(list(heard))


def _sound_packets(container: OutputContainer, sound: Sound) -> Iterator["av.Packet[av.AudioStream]"]:
    """Add an AAC stream at once; its packets come when they are asked for."""
    layout = "mono" if len(sound.samples) == 1 else "stereo"
    stream = container.add_stream("aac", rate=sound.rate_hz, layout=layout, bit_rate=_SOUND_BITS_PER_S)
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= Flags.bitexact

    def packets() -> Iterator["av.Packet[av.AudioStream]"]:
        for begin in range(0, sound.samples.shape[1], _AAC_SAMPLES):
            block = np.ascontiguousarray(sound.samples[:, begin : begin + _AAC_SAMPLES])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, begin, Fraction(1, sound.rate_hz)
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets()


def _yuv_frame(picture: Pixels) -> av.VideoFrame:
    parts = colour.rgb_to_yuv420(picture, colour.BT709)
    packed = np.concatenate([part.reshape(-1) for part in parts])
    height, width = picture.shape[:2]
    frame = av.VideoFrame.from_ndarray(packed.reshape(height * 3 // 2, width), format="yuv420p")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    return frame
