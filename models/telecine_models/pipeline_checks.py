"""What a pipeline's parts and a call's arguments must keep; each error names the argument, its value and the rule."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from telecine_models.pipeline_inputs import Inputs, Picture, Size
from telecine_models.sampling import EVALUATIONS_PER_STEP, Method
from telecine_models.text import TextEncoder
from telecine_models.vae import Compression, VideoVAE
from telecine_models.video_dit.action import ActionControl, Actions
from telecine_models.video_dit.config import VideoDiTConfig

_OWNER = "TelecinePipeline"
_WITHOUT_FRAMES = ("elements", "style")
"""Inputs that mean the same in every window of a video."""


def check_parts(size: VideoDiTConfig, text: TextEncoder, vae: VideoVAE, control: ActionControl | None) -> None:
    """Raise a ValueError for parts that do not fit each other."""
    pairs = {"in_channels of transformer": (size.in_channels, vae.latent_channels, "the autoencoder's latents have")}
    pairs |= {"text_dim of transformer": (size.text_dim, text.text_dim, "the text encoder gives")}
    if control is not None:
        pairs |= {"width of action_control": (control.config["width"], size.width, "the transformer has")}
        frames = vae.compression.frames
        pairs |= {"compression of action_control": (control.config["compression"], frames, "the autoencoder has")}
    for name, (value, wanted, whose) in pairs.items():
        if value != wanted:
            raise ValueError(f"{_OWNER}: {name} must be {wanted}, as {whose}, got {value}")


def check_settings(
    prompts: Sequence[str],
    num_steps: int,
    guidance_scale: float,
    method: Method,
    metrics: Mapping[str, float] | None,
    known_metrics: Sequence[str],
) -> None:
    """Raise a ValueError for a setting out of range."""
    if not prompts:
        raise ValueError(f"{_OWNER}: prompt must hold at least one caption, got an empty list")
    if num_steps < 1:
        raise ValueError(f"{_OWNER}: num_steps must be at least 1, got {num_steps}")
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise ValueError(f"{_OWNER}: guidance_scale must be finite and at least 0, got {guidance_scale}")
    if method not in EVALUATIONS_PER_STEP:
        raise ValueError(f"{_OWNER}: method must be one of {sorted(EVALUATIONS_PER_STEP)}, got {method!r}")
    for name, value in (metrics or {}).items():
        if name not in known_metrics or not 0 <= value <= 1:
            raise ValueError(f"{_OWNER}: metrics must be of {list(known_metrics)} and in [0, 1], got {name}={value}")


def check_size(size: Size, config: VideoDiTConfig, compression: Compression) -> None:
    """Raise a ValueError for a video that does not make whole patches of whole latents."""
    _check_frames("num_frames", size[0], config, compression)
    for name, value, patch, ratio in (
        ("height_px", size[1], config.patch_size[1], compression.height),
        ("width_px", size[2], config.patch_size[2], compression.width),
    ):
        if value < 1 or value % (patch * ratio):
            raise ValueError(
                f"{_OWNER}: {name} must be a positive multiple of {patch * ratio} (the model's patch), got {value}"
            )


def check_inputs(inputs: Inputs, size: Size, config: VideoDiTConfig, compression: Compression) -> None:
    """Raise a ValueError for a condition that the model does not know, or that does not fit the video."""
    if unknown := [name for name in inputs.given() if name not in config.conditions]:
        raise ValueError(f"{_OWNER}: this model knows {list(config.conditions)}, got {unknown}")
    inputs.check(size)
    rows, columns = config.patch_size[1] * compression.height, config.patch_size[2] * compression.width
    pictures = {"style": inputs.style, "elements[0]": inputs.elements[0] if inputs.elements else None}
    for name, picture in pictures.items():
        if picture is not None and (0 in picture.shape or picture.shape[0] % rows or picture.shape[1] % columns):
            rule = f"of sides that are positive multiples of {rows} and {columns}"
            raise ValueError(f"{_OWNER}: {name} must be {rule}, got {list(picture.shape[:2])}")


def check_actions(
    actions: Actions | None, num_frames: int, config: VideoDiTConfig, control: ActionControl | None
) -> None:
    """Raise a ValueError for actions that nobody obeys, or of another length than the video."""
    if actions is None:
        return
    if control is None:
        raise ValueError(f"{_OWNER}: actions need a pipeline with action_control, this one has none")
    if config.patch_size[0] != 1:
        raise ValueError(f"{_OWNER}: actions need a model whose patch has 1 frame, got {config.patch_size[0]}")
    if actions.keys.shape[:2] != (1, num_frames - 1):
        shape = f"[1, {num_frames - 1}, K], one action for each frame but the first"
        raise ValueError(f"{_OWNER}: actions must be shaped {shape}, got {list(actions.keys.shape)}")


def check_windows(
    extend: Picture | None,
    window_frames: int | None,
    inputs: Inputs,
    size: Size,
    config: VideoDiTConfig,
    compression: Compression,
) -> None:
    """Raise a ValueError for a video to go on from, or windows, that do not fit."""
    if extend is not None:
        if extend.dtype != np.uint8 or extend.ndim != 4 or extend.shape[1:] != (*size[1:], 3):
            shape = f"uint8 [f, {size[1]}, {size[2]}, 3]"
            raise ValueError(f"{_OWNER}: extend must be {shape}, got {extend.dtype} {list(extend.shape)}")
        _check_frames("the length of extend", len(extend), config, compression)
        if len(extend) >= size[0]:
            raise ValueError(f"{_OWNER}: extend must be shorter than num_frames {size[0]}, got {len(extend)}")
    if window_frames is not None:
        _check_frames("window_frames", window_frames, config, compression)
        if compression.latent_size(window_frames, compression.height, compression.width)[0] < 2 * config.patch_size[0]:
            raise ValueError(f"{_OWNER}: window_frames must hold known frames and new ones, got {window_frames}")
    in_windows = extend is not None or (window_frames is not None and window_frames < size[0])
    bound = [name for name in inputs.given() if name not in _WITHOUT_FRAMES]
    if in_windows and bound:
        raise ValueError(f"{_OWNER}: in windows, inputs may hold {' and '.join(_WITHOUT_FRAMES)}, got {bound}")


def _check_frames(name: str, value: int, config: VideoDiTConfig, compression: Compression) -> None:
    """A causal autoencoder keeps the first frame alone, so that 1 + r n frames make 1 + n latent ones."""
    ratio, patch = compression.frames, config.patch_size[0]
    if value >= 1 and (value - 1) % ratio == 0 and ((value - 1) // ratio + 1) % patch == 0:
        return
    rule = f"a positive multiple of {patch} (the model's patch)"
    if ratio > 1:
        rule = f"1 + {ratio} n, for latent frames that are a multiple of {patch}"
    raise ValueError(f"{_OWNER}: {name} must be {rule}, got {value}")
