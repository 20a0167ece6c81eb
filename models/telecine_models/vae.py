"""Between pixels and latents: causal 3D autoencoders of diffusers by path, and the identity for tiny models.

A causal autoencoder keeps the first frame alone and puts r frames into each later latent frame: 1 + r n video frames
are 1 + n latent frames, and an image is a video of one frame.
Axes: B batch, C channels, F frames, H height, W width; of a video in [-1, 1] or of its latents.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor

from telecine_models.local import FromFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression:
    """How many video frames, rows and columns a latent frame, row and column stand for."""

    frames: int
    height: int
    width: int

    def latent_size(self, num_frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """Frames, rows and columns of a video's latents.

        Raises:
            ValueError: a number of frames other than 1 + r n, or a side that is no multiple of its compression.
        """
        if num_frames < 1 or (num_frames - 1) % self.frames:
            raise ValueError(f"Compression: num_frames must be 1 + {self.frames} n with n >= 0, got {num_frames}")
        for name, value, ratio in (("height_px", height_px, self.height), ("width_px", width_px, self.width)):
            if value < 1 or value % ratio:
                raise ValueError(f"Compression: {name} must be a positive multiple of {ratio}, got {value}")
        return 1 + (num_frames - 1) // self.frames, height_px // self.height, width_px // self.width

    def video_size(self, num_frames: int, rows: int, columns: int) -> tuple[int, int, int]:
        """Frames, height and width in pixels of the video that such latents stand for."""
        return 1 + (num_frames - 1) * self.frames, rows * self.height, columns * self.width


@runtime_checkable
class VideoVAE(Protocol):
    """What a model in latent space needs to know. Latents are normalised: about zero mean and unit variance."""

    @property
    def compression(self) -> Compression: ...

    @property
    def latent_channels(self) -> int: ...

    def encode(self, video: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B latent_C latent_F latent_H latent_W"]: ...

    def decode(self, latents: Float[Tensor, "B latent_C latent_F latent_H latent_W"]) -> Float[Tensor, "B C F H W"]: ...


class IdentityVAE(FromFolder, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pixels in [-1, 1] are the latents; for models so small that they need no compression."""

    compression = Compression(frames=1, height=1, width=1)

    @register_to_config
    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        # Gives a model without weights a dtype and a device, and a file of weights to be saved in.
        self.register_buffer("unit", torch.ones(1))

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"])

    def encode(self, video: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B C F H W"]:
        """The video itself.

        Raises:
            ValueError: another number of channels.
        """
        _check("IdentityVAE", "video", video, self.latent_channels)
        return video

    def decode(self, latents: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B C F H W"]:
        """The latents themselves.

        Raises:
            ValueError: another number of channels.
        """
        _check("IdentityVAE", "latents", latents, self.latent_channels)
        return latents


class CausalVAE:
    """A frozen autoencoder of diffusers behind :class:`VideoVAE`.

    ``encode`` gives the mean of the posterior, so a video has one set of latents. A latent frame depends on no later
    video frame, except in AutoencoderKLHunyuanVideo, whose group norms take their statistics over all frames.
    """

    def __init__(self, model: ModelMixin) -> None:
        self.model = model.requires_grad_(False).eval()
        for parameter in model.parameters():
            # Mapped from a file they are not aligned as allocated ones are, and unaligned products round differently.
            parameter.data = parameter.data.clone()
        self.video_channels, frames, side = _SIZES[type(model).__name__](model)
        self.compression = Compression(frames=frames, height=side, width=side)
        self.latent_channels = int(_setting(model, "latent_channels", None) or _setting(model, "z_dim", None))
        mean, std = (_setting(model, name, None) for name in ("latents_mean", "latents_std"))
        self._mean = _per_channel(mean, 0.0, self.latent_channels)
        self._std = _per_channel(std, 1.0, self.latent_channels) / _setting(model, "scaling_factor", 1.0)

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "B C F H W"]) -> Float[Tensor, "B latent_C latent_F latent_H latent_W"]:
        """Normalised latents of a video in [-1, 1].

        Raises:
            ValueError: a size or a number of channels that the model cannot compress.
        """
        _check(type(self.model).__name__, "video", video, self.video_channels)
        self.compression.latent_size(*video.shape[2:])
        # One video at a time: it saves memory, and some of these models build attention masks that fit no other batch.
        singles = [self.model.encode(one).latent_dist.mode() for one in video.to(self.model.dtype).split(1)]
        latents = torch.cat(singles).to(video.dtype)
        normalised: Tensor = (latents - self._mean.to(latents)) / self._std.to(latents)
        return normalised

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B latent_C latent_F latent_H latent_W"]) -> Float[Tensor, "B C F H W"]:
        """The video of normalised latents; it can overshoot [-1, 1].

        Raises:
            ValueError: another number of channels.
        """
        _check(type(self.model).__name__, "latents", latents, self.latent_channels)
        raw = (latents * self._std.to(latents) + self._mean.to(latents)).to(self.model.dtype)
        # Later versions of LTX-Video's decoder can remove the last noise as well; at flow time zero there is none.
        denoises = _setting(self.model, "timestep_conditioning", False)
        time = (raw.new_zeros(1),) if denoises else ()
        return torch.cat([self.model.decode(one, *time).sample for one in raw.split(1)]).to(latents.dtype)


def load_vae(folder: str | os.PathLike[str]) -> VideoVAE:
    """The autoencoder that ``save_pretrained`` wrote into ``folder``: safetensors only, frozen, no network.

    Raises:
        ValueError: no such folder, a class that is no causal video autoencoder, or no weights in safetensors.
    """
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise ValueError(f"load_vae: folder must hold a config.json, got {folder}")
    name = json.loads(config.read_text()).get("_class_name")
    if name not in _KNOWN:
        raise ValueError(f"load_vae: the class in {config} must be one of {', '.join(_KNOWN)}, got {name!r}")
    if not list(Path(folder).glob("*.safetensors")):
        raise ValueError(f"load_vae: folder must hold weights as safetensors, other formats are not read, got {folder}")
    found = IdentityVAE if name == IdentityVAE.__name__ else getattr(diffusers, name)
    return as_video_vae(found.from_pretrained(folder, use_safetensors=True, local_files_only=True))


def as_video_vae(model: ModelMixin) -> VideoVAE:
    """A model of :func:`load_vae`'s classes, built from a config or loaded by a pipeline, behind :class:`VideoVAE`.

    Raises:
        ValueError: a model of another class.
    """
    if isinstance(model, IdentityVAE):
        return cast(VideoVAE, model)
    if type(model).__name__ not in CAUSAL_VAES:
        raise ValueError(f"as_video_vae: model must be one of {', '.join(_KNOWN)}, got {type(model).__name__}")
    return CausalVAE(model)


def _sizes_of_wan(model: ModelMixin) -> tuple[int, int, int]:
    # Its fields scale_factor_temporal and scale_factor_spatial hold the published sizes whatever the layers do, and
    # where it cuts frames into patches in_channels counts the numbers of a patch.
    halves_time, patch = model.config["temperal_downsample"], model.config["patch_size"] or 1
    if sum(halves_time) != 2:
        raise ValueError(
            f"AutoencoderKLWan: temperal_downsample must halve time twice, because it encodes four frames at a time, "
            f"got {list(halves_time)}"
        )
    return model.config["in_channels"] // patch**2, 4, patch * 2 ** len(halves_time)


def _sizes_as_stated(model: ModelMixin) -> tuple[int, int, int]:
    return model.config["in_channels"], model.temporal_compression_ratio, model.spatial_compression_ratio


# Channels of the video, video frames per latent frame, pixels per latent row.
_SIZES: dict[str, Callable[[ModelMixin], tuple[int, int, int]]] = {
    "AutoencoderKLWan": _sizes_of_wan,
    "AutoencoderKLLTXVideo": _sizes_as_stated,
    "AutoencoderKLHunyuanVideo15": _sizes_as_stated,
    "AutoencoderKLHunyuanVideo": _sizes_as_stated,
}
CAUSAL_VAES = tuple(_SIZES)
"""Classes of diffusers that are loaded."""
_KNOWN = (IdentityVAE.__name__, *CAUSAL_VAES)


def _setting(model: ModelMixin, name: str, default: Any) -> Any:
    """Of the configuration; LTX-Video keeps its mean and deviation beside its weights."""
    value = model.config.get(name, None)
    found = dict(model.named_buffers(recurse=False)).get(name) if value is None else value
    return default if found is None else found


def _per_channel(values: Any, default: float, num_channels: int) -> Float[Tensor, "C 1 1 1"]:
    filled = torch.full((num_channels,), default) if values is None else torch.as_tensor(values, dtype=torch.float32)
    return filled.view(num_channels, 1, 1, 1)


def _check(owner: str, name: str, value: Tensor, num_channels: int) -> None:
    if value.ndim != 5 or value.shape[1] != num_channels:
        raise ValueError(f"{owner}: {name} must be shaped [B, {num_channels}, F, H, W], got {list(value.shape)}")
