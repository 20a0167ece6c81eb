"""The luma and chroma planes of a decoded frame, without a colour conversion of the whole picture.

Reading planes costs nothing; converting a 720p frame to RGB through swscale costs a third of its decoding.
Pillow's box filter works in integers, so its results do not depend on threads or vector units.
"""

import dataclasses

import av
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from PIL import Image

from telecine_components.media import colour
from telecine_components.media.orientation import Orientation, orientation_of

PLANAR_FORMATS = frozenset(
    {f"yuv{subsampling}p" for subsampling in (420, 422, 444, 440)}
    | {f"yuvj{subsampling}p" for subsampling in (420, 422, 444, 440)}
    | {f"yuva{subsampling}p" for subsampling in (420, 422, 444)}
)
"""8-bit planar formats that are read as they are, alpha left out; others are converted to yuv444p first."""

LUMA_TO_FULL = [min(255, max(0, round((level - 16) * 255 / 219))) for level in range(256)]
CHROMA_TO_FULL = [min(255, max(0, round(128 + (level - 128) * 255 / 224))) for level in range(256)]

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Planes:
    """Y, Cb and Cr of one frame (chroma may be smaller), and how to read them.

    Attributes:
        orientation: how the picture has to be turned before it is shown.
    """

    y: VideoPlane
    cb: VideoPlane
    cr: VideoPlane
    matrix: colour.Matrix
    full_range: bool
    orientation: Orientation


def planes_of(frame: av.VideoFrame, orientation: Orientation | None = None) -> Planes:
    """The planes of ``frame``; they share its memory.

    Args:
        orientation: of the film. A frame that has to be asked for its own lives until garbage is collected, so who goes
            through many gives it.
    """
    # BT.601 is what swscale makes of RGB.
    matrix = colour.BT601 if frame.format.is_rgb else colour.matrix_of(int(frame.colorspace), frame.height)
    levels = levels_of(frame)
    is_planar = frame.format.name in PLANAR_FORMATS
    y, cb, cr = (frame if is_planar else frame.reformat(format="yuv444p", dst_color_range=levels)).planes[:3]
    return Planes(y, cb, cr, matrix, levels == ColorRange.JPEG, orientation or orientation_of(frame))


def levels_of(frame: av.VideoFrame) -> ColorRange:
    """The range of a frame's levels in YUV: its own, and that of video for RGB, which swscale would leave full."""
    is_full = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    return ColorRange.JPEG if is_full and not frame.format.is_rgb else ColorRange.MPEG


def luma(planes: Planes, width_px: int, height_px: int) -> Image.Image:
    """Luma, 0 black to 255 white, shrunk for analysis: box means over every k-th row, which is three times cheaper."""
    step = max(1, planes.y.height // height_px)
    shrunk = _picture(planes.y, step).resize((width_px, height_px), Image.Resampling.BOX)
    return shrunk if planes.full_range else shrunk.point(LUMA_TO_FULL)


def colour_picture(planes: Planes, width_px: int, height_px: int) -> tuple[Image.Image, Image.Image]:
    """(luma, RGB) of the given size for analysis: fast, in BT.601 whatever the file says, not rotated."""
    grey = luma(planes, width_px, height_px)
    chroma = [
        _picture(plane, max(1, plane.height // height_px)).resize((width_px, height_px), Image.Resampling.BOX)
        for plane in (planes.cb, planes.cr)
    ]
    if not planes.full_range:
        chroma = [plane.point(CHROMA_TO_FULL) for plane in chroma]
    return grey, Image.merge("YCbCr", (grey, *chroma)).convert("RGB")


def thumbnail(planes: Planes, width_px: int, height_px: int) -> Pixels:
    """The picture cropped from the centre to the target's aspect ratio and shrunk by area means.

    Returns:
        uint8 [height_px, width_px, 3], RGB, upright.
    """
    size = (height_px, width_px) if planes.orientation.is_sideways else (width_px, height_px)
    # Chroma may have a grid of its own shape (4:2:2), so the aspect ratio is given in its pixels.
    aspects = [size[0] / size[1] * _pixel_aspect(planes.y, plane) for plane in (planes.y, planes.cb, planes.cr)]
    pictures = zip((planes.y, planes.cb, planes.cr), aspects, strict=True)
    channels = [_crop_resize(plane, size, aspect) for plane, aspect in pictures]
    rgb = colour.yuv_to_rgb(np.stack(channels, axis=-1), planes.matrix, full_range=planes.full_range)
    return np.ascontiguousarray(planes.orientation.upright(rgb))


def centre_box(width_px: int, height_px: int, aspect: float) -> Box:
    """The largest box (left, top, right, bottom) of width/height ``aspect`` in the middle of a picture."""
    width, height = min(float(width_px), height_px * aspect), min(float(height_px), width_px / aspect)
    left, top = (width_px - width) / 2, (height_px - height) / 2
    return left, top, left + width, top + height


def _crop_resize(plane: VideoPlane, size: tuple[int, int], aspect: float) -> Pixels:
    box = centre_box(plane.width, plane.height, aspect)
    # Box means only shrink well; enlarged by them, a picture falls into blocks.
    shrinks = box[2] - box[0] >= size[0] and box[3] - box[1] >= size[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(_picture(plane).resize(size, method, box=box))


def _pixel_aspect(luma_plane: VideoPlane, plane: VideoPlane) -> float:
    return (plane.width / luma_plane.width) / (plane.height / luma_plane.height)


def _picture(plane: VideoPlane, step: int = 1) -> Image.Image:
    # Every step-th row, without a copy: the rows between are part of the stride.
    size = (plane.width, plane.height // step)
    return Image.frombuffer("L", size, np.asarray(plane), "raw", "L", plane.line_size * step, 1)
