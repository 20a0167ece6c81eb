"""Encoding: frames to an H.264 mp4 that browsers play, with the same bytes for the same frames."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from telecine_components.media import colour

Pixels = npt.NDArray[np.uint8]


def write_mp4(path: Path, frames: Pixels, fps: float, *, crf: int = 18, preset: str = "fast") -> None:
    """Write frames (uint8 [F, H, W, 3], RGB, F >= 1) as H.264, yuv420p, BT.709.

    4:2:0 needs even sizes, so an odd side grows by its last row or column. One x264 thread, because with two the bytes
    differ; no macroblock-tree rate control, because with its AVX-512 code and B-frames five of twelve films differed
    between two encodings of the same pictures in one process, and without it none.
    """
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": "mbtree=0"}
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        for picture in even:
            container.mux(stream.encode(_yuv_frame(picture)))
        container.mux(stream.encode(None))


def _yuv_frame(picture: Pixels) -> av.VideoFrame:
    parts = colour.rgb_to_yuv420(picture, colour.BT709)
    packed = np.concatenate([part.reshape(-1) for part in parts])
    height, width = picture.shape[:2]
    frame = av.VideoFrame.from_ndarray(packed.reshape(height * 3 // 2, width), format="yuv420p")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    return frame
