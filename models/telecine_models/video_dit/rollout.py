"""Long videos, window by window: each continues from the last latent frames of the one before.

A window of N+1 latent frames starts with k+1 clean frames of history, which a denoiser sees at flow time 0; the other
N-k are made from noise, and only these are learnt from (GameFactory, arXiv 2501.08325: a loss on all frames follows the
actions worse). Axes: B batch, C channels, F latent frames, H height, W width.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from telecine_models.flow import flow_matching_loss
from telecine_models.video_dit.action import Actions

Generate = Callable[[range, Float[Tensor, "B C history H W"]], Float[Tensor, "B C new H W"]]
"""New latent frames of the window that covers these latent frames of the whole video, given its history."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a long video is cut into windows.

    Args:
        window_frames: latent frames of one window, N+1.
        history_frames: of these, how many are known from the window before, k+1.

    Raises:
        ValueError: a window without history, or without a new frame.
    """

    window_frames: int
    history_frames: int

    def __post_init__(self) -> None:
        if not 1 <= self.history_frames < self.window_frames:
            raise ValueError(
                f"Rollout: history_frames must lie in [1, window_frames), got {self.history_frames} "
                f"with window_frames {self.window_frames}"
            )

    def windows(self, num_known: int, num_frames: int) -> list[range]:
        """Latent frames of the video that each window covers, from ``num_known`` frames to ``num_frames``.

        The first ``history_frames`` of a window are known, or as many as there are; the last window may be shorter.
        """
        windows = []
        while num_known < num_frames:
            start = max(0, num_known - self.history_frames)
            windows.append(range(start, min(start + self.window_frames, num_frames)))
            num_known = windows[-1].stop
        return windows


def roll_out(
    generate: Generate, known: Float[Tensor, "B C known H W"], rollout: Rollout, num_frames: int
) -> Float[Tensor, "B C F H W"]:
    """``num_frames`` latent frames that begin with the known ones, and whose others windows add."""
    latents = known
    for frames in rollout.windows(known.shape[2], num_frames):
        latents = torch.cat((latents, generate(frames, latents[:, :, frames.start :])), dim=2)
    return latents


def actions_between(actions: Actions, frames: range, compression: int) -> Actions:
    """The actions that lead through these latent frames of a video, from the first of them to the last."""
    steps = slice(frames.start * compression, (frames.stop - 1) * compression)
    known = None if actions.known is None else actions.known[:, steps]
    return Actions(keys=actions.keys[:, steps], mouse=actions.mouse[:, steps], known=known)


def frame_times(t: Float[Tensor, " B"], num_frames: int, history_frames: int) -> Float[Tensor, "B F"]:
    """Flow time of each latent frame of a window: 0, which is data, for its history, and ``t`` for the others."""
    new = torch.arange(num_frames, device=t.device) >= history_frames
    return t[:, None] * new


def keep_history(
    x: Float[Tensor, "B C F H W"], history: Float[Tensor, "B C history H W"]
) -> Float[Tensor, "B C F H W"]:
    """``x`` with its first frames replaced by clean ones, as a denoiser of a window expects it at every flow time."""
    return torch.cat((history, x[:, :, history.shape[2] :]), dim=2)


def new_frames_loss(
    denoiser_output: Float[Tensor, "B C F H W"],
    x0: Float[Tensor, "B C F H W"],
    noise: Float[Tensor, "B C F H W"],
    history_frames: int,
) -> Float[Tensor, " B"]:
    """Flow-matching loss of the frames after the history, one value per sample; the history teaches nothing."""
    new = slice(history_frames, None)
    return flow_matching_loss(denoiser_output[:, :, new], x0[:, :, new], noise[:, :, new])
