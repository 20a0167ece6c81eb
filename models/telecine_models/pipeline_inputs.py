"""What a person hands to the pipeline beside a prompt: pictures, videos and numbers, checked and turned into latents.

Axes: F frames, H height, W width of the video that is to be made; h, w of another picture; f latent frames.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from telecine_models.camera import flatten_poses, relative_poses
from telecine_models.pixels import to_model_range
from telecine_models.vae import Compression, VideoVAE
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.config import MAX_ELEMENTS

Picture = npt.NDArray[np.uint8]
Size = tuple[int, int, int]
"""Frames, height and width in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Conditions in pixels, the same for every prompt of a call; None where there is none.

    Attributes:
        first_frame, last_frame: uint8 [H, W, 3] pictures that the video begins and ends with.
        source: uint8 [F, H, W, 3] video to edit; needs ``source_mask``.
        source_mask: bool [F, H, W], true where something new is to be; elsewhere the source stays as it is.
        depth, sketch: float [F, H, W] in [0, 1], structure that the video follows.
        camera: float [F, 3, 4] pose [R|t] of each frame, world-to-camera in any world; the model sees how the camera
            moves from the first.
        elements: up to four pictures, uint8 [h, w, 3] of one size, of what is to appear.
        style: uint8 [h, w, 3] a picture of the look.
    """

    first_frame: Picture | None = None
    last_frame: Picture | None = None
    source: Picture | None = None
    source_mask: npt.NDArray[np.bool_] | None = None
    depth: npt.NDArray[np.floating] | None = None
    sketch: npt.NDArray[np.floating] | None = None
    camera: npt.NDArray[np.floating] | None = None
    elements: Sequence[Picture] | None = None
    style: Picture | None = None

    def given(self) -> list[str]:
        """Names of the conditions that are there."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if name != "source_mask" and getattr(self, name) is not None]

    def check(self, size: Size) -> None:
        """Raise a ValueError that names what does not fit a video of ``size``, with its value."""
        frames, height, width = size
        for name in ("first_frame", "last_frame"):
            _check_pixels(name, getattr(self, name), (height, width, 3))
        _check_pixels("source", self.source, (frames, height, width, 3))
        for name in ("depth", "sketch"):
            _check_numbers(name, getattr(self, name), (frames, height, width), unit=True)
        _check_numbers("camera", self.camera, (frames, 3, 4), unit=False)
        _check_pixels("style", self.style, (None, None, 3))
        self._check_elements()
        self._check_mask()

    def _check_elements(self) -> None:
        if self.elements is None:
            return
        if not 1 <= len(self.elements) <= MAX_ELEMENTS:
            raise ValueError(f"elements must be 1 to {MAX_ELEMENTS} pictures, got {len(self.elements)}")
        for index, element in enumerate(self.elements):
            _check_pixels(f"elements[{index}]", element, (None, None, 3))
        if len(sizes := {element.shape for element in self.elements}) > 1:
            raise ValueError(f"elements must be pictures of one size, got {sorted(sizes)}")

    def _check_mask(self) -> None:
        if (self.source is None) != (self.source_mask is None):
            got = "source" if self.source_mask is None else "source_mask"
            raise ValueError(f"source and source_mask must be given together, got {got} alone")
        if self.source is None or self.source_mask is None:
            return
        if self.source_mask.dtype != np.bool_ or self.source_mask.shape != self.source.shape[:3]:
            rule = f"a mask inside the video: bool {list(self.source.shape[:3])}"
            raise ValueError(f"source_mask must be {rule}, got {self.source_mask.dtype} {list(self.source_mask.shape)}")

    def conditions(self, vae: VideoVAE, batch: int, device: torch.device, dtype: torch.dtype) -> Conditions:
        """As latents of a batch of equal samples."""

        def batched(value: Tensor) -> Tensor:
            return value.to(device, dtype).expand(batch, *value.shape[1:])

        def video(pixels: Picture | None) -> Tensor | None:
            return None if pixels is None else batched(encode(vae, pixels, device))

        def picture(pixels: Picture | None) -> Tensor | None:
            return None if pixels is None else batched(encode(vae, pixels[None], device)[:, :, 0])

        elements = None
        if self.elements is not None:
            each = [encode(vae, element[None], device)[:, None, :, 0] for element in self.elements]
            elements = batched(torch.cat(each, dim=1))
        return Conditions(
            first_frame=picture(self.first_frame),
            last_frame=picture(self.last_frame),
            source=video(self.source),
            source_mask=None if self.source_mask is None else batched(shrink_mask(self.source_mask, vae.compression)),
            depth=video(_grey(self.depth)),
            sketch=video(_grey(self.sketch)),
            camera=None if self.camera is None else batched(_latent_poses(self.camera, vae.compression)),
            elements=elements,
            style=picture(self.style),
        )


def encode(vae: VideoVAE, pixels: Picture, device: torch.device) -> Float[Tensor, "1 C f rows columns"]:
    """Latents of a video uint8 [F, H, W, 3]."""
    return vae.encode(to_model_range(torch.from_numpy(np.ascontiguousarray(pixels))[None]).to(device))


def shrink_mask(mask: npt.NDArray[np.bool_], compression: Compression) -> Float[Tensor, "1 f rows columns"]:
    """One for each latent pixel that stands for any masked one."""
    sides = mask.reshape(len(mask), mask.shape[1] // compression.height, compression.height, -1, compression.width)
    small: npt.NDArray[np.bool_] = np.asarray(sides.any(axis=(2, 4)))
    later = small[1:].reshape(-1, compression.frames, *small.shape[1:]).any(axis=1)
    return torch.from_numpy(np.concatenate((small[:1], later)).astype(np.float32))[None]


def _latent_poses(poses: npt.NDArray[np.floating], compression: Compression) -> Float[Tensor, "1 f 12"]:
    """The pose of the last video frame that each latent frame stands for, relative to the first."""
    kept = torch.from_numpy(poses[:: compression.frames].astype(np.float32))
    return flatten_poses(relative_poses(kept))[None]


def _grey(values: npt.NDArray[np.floating] | None) -> Picture | None:
    if values is None:
        return None
    levels = np.rint(values * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def _check_pixels(name: str, pixels: Picture | None, shape: tuple[int | None, ...]) -> None:
    if pixels is None:
        return
    fits = pixels.ndim == len(shape) and all(
        wanted in (None, side) for wanted, side in zip(shape, pixels.shape, strict=True)
    )
    if pixels.dtype != np.uint8 or not fits:
        wanted = ["any" if side is None else side for side in shape]
        raise ValueError(f"{name} must be uint8 {wanted}, got {pixels.dtype} {list(pixels.shape)}")


def _check_numbers(name: str, values: npt.NDArray[np.floating] | None, shape: tuple[int, ...], *, unit: bool) -> None:
    if values is None:
        return
    if not np.issubdtype(values.dtype, np.floating) or values.shape != shape:
        raise ValueError(f"{name} must be floats {list(shape)}, got {values.dtype} {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    if unit and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"{name} must lie in [0, 1], got {values.min():.3g} to {values.max():.3g}")
