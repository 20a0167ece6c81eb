"""What a video is conditioned on beside its text, all of it as tokens of one sequence (FullDiT, arXiv 2503.19907).

Each kind has its own projection and a bias that starts at zero; what has a place in time keeps the target's frame
indices, and what has none takes slots behind the last frame (UNIC, arXiv 2506.04216). Condition tokens are clean,
nothing is predicted at them, and each kind can be absent in any sample.

Axes: B batch, C channels, F frames, H height, W width, E elements, M context tokens, D width.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from telecine_models.video_dit.config import CAMERA_CHANNELS, KINDS, MAX_ELEMENTS, STYLE_SLOT, VideoDiTConfig
from telecine_models.video_dit.patches import Triple, grid_of, patchify
from telecine_models.video_dit.rope import grid_positions

_IMAGES = ("first_frame", "last_frame", "style")
_VIDEOS = ("source", "depth", "sketch")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Conditions of a batch of videos, as latents like the videos themselves; None where no sample has the kind.

    Attributes:
        first_frame, last_frame: [B, C, H, W] pictures that the video begins and ends with, each encoded by itself.
        source: [B, C, F, H, W] the video to edit; needs ``source_mask``.
        source_mask: [B, F, H, W], one where something is to be generated and zero where the source is to be kept.
        depth, sketch: [B, C, F, H, W] videos that give the structure.
        camera: [B, F, 12] a pose [R|t] for each latent frame, relative to the first.
        elements: [B, E, C, h, w] up to four images of what is to appear.
        style: [B, C, h, w] an image of the look.
        present: for each kind [B] which samples have it, for ``elements`` [B, E]; a kind that is left out is in all.
    """

    first_frame: Float[Tensor, "B C H W"] | None = None
    last_frame: Float[Tensor, "B C H W"] | None = None
    source: Float[Tensor, "B C F H W"] | None = None
    source_mask: Float[Tensor, "B F H W"] | None = None
    depth: Float[Tensor, "B C F H W"] | None = None
    sketch: Float[Tensor, "B C F H W"] | None = None
    camera: Float[Tensor, "B F 12"] | None = None
    elements: Float[Tensor, "B E C h w"] | None = None
    style: Float[Tensor, "B C h2 w2"] | None = None
    present: Mapping[str, Bool[Tensor, "B ..."]] = dataclasses.field(default_factory=dict)

    def given(self) -> Iterator[tuple[str, Tensor]]:
        """The kinds that are there with their values, always in the order of :data:`KINDS`."""
        for kind in KINDS:
            value = getattr(self, kind)
            if value is not None:
                yield kind, value

    def drop(self, rates: Mapping[str, float], generator: torch.Generator) -> "Conditions":
        """Take each kind from each sample by itself with its probability, so that a model learns every combination.

        Args:
            rates: probability in [0, 1] for each kind; a kind that is left out stays.
            generator: of the CPU, so that the choice does not depend on the device.

        Raises:
            ValueError: a kind that there is not, or a rate that is no probability.
        """
        for kind, rate in rates.items():
            if kind not in KINDS or not 0 <= rate <= 1:
                raise ValueError(f"Conditions.drop: rates must be probabilities of {list(KINDS)}, got {kind}={rate}")
        kept = {
            kind: torch.rand(len(value), generator=generator) >= rates.get(kind, 0.0) for kind, value in self.given()
        }
        return self.keep(kept)

    def keep(self, kept: Mapping[str, Bool[Tensor, " B"]]) -> "Conditions":
        """Only these of each kind's samples have it; a kind that is left out stays."""
        present = dict(self.present)
        for kind, value in self.given():
            if kind in kept:
                there = _presence(self, kind, value)
                present[kind] = there & kept[kind].to(there.device).view(-1, *[1] * (there.ndim - 1))
        return dataclasses.replace(self, present=present)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same with every tensor changed, those of :attr:`present` too: on a device, or of other samples."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tensors = {name: change(value) for name, value in fields.items() if isinstance(value, Tensor)}
        return Conditions(**tensors, present={kind: change(there) for kind, there in self.present.items()})


def slot(kind: str, grid: Triple, element: int = 0) -> int:
    """Frame index at which a kind's tokens begin in a video of ``grid`` tokens.

    What follows the video frame by frame begins with it; images that have no place in time stand behind its end, each
    in a slot of its own, however long the video is.
    """
    behind = {"last_frame": grid[0] - 1, "elements": grid[0] + element, "style": grid[0] + STYLE_SLOT}
    return behind.get(kind, 0)


class ConditionEmbedder(nn.Module):
    """Turns conditions into tokens of the model's width with positions.

    Args:
        config: says which kinds there are; each gets a projection and a bias.
    """

    def __init__(self, config: VideoDiTConfig) -> None:
        super().__init__()
        self.config = config
        pixels = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        channels = dict.fromkeys(config.conditions, config.in_channels * pixels)
        # The mask is a channel of the source.
        channels |= {"source": (config.in_channels + 1) * pixels, "camera": CAMERA_CHANNELS * config.patch_size[0]}
        self.project = nn.ModuleDict(
            {kind: nn.Linear(channels[kind], config.width, bias=False) for kind in config.conditions}
        )
        self.bias = nn.ParameterDict({kind: nn.Parameter(torch.zeros(config.width)) for kind in config.conditions})

    def forward(
        self, conditions: Conditions, video: Triple
    ) -> tuple[Float[Tensor, "B M D"], Int[Tensor, "M 3"], Bool[Tensor, "B M"] | None]:
        """Tokens, their (frame, row, column), and which of them a sample has.

        Args:
            conditions: at least one kind, and what :func:`check` lets pass.
            video: frames, rows and columns of the target, in latent pixels.
        """
        tokens, positions, real = [], [], []
        for kind, value in conditions.given():
            made, places = self._tokens(kind, value, conditions, video)
            tokens.append(made)
            positions.append(places)
            real.append(_spread(_presence(conditions, kind, value), len(places)))
        together, places = torch.cat(tokens, dim=1), torch.cat(positions)
        if not conditions.present:
            return together, places, None
        there = torch.cat(real, dim=1)
        # Whatever an absent condition holds, also what is no number, stays out of the sums.
        return together.masked_fill(~there[..., None], 0), places, there

    def _tokens(self, kind: str, value: Tensor, conditions: Conditions, video: Triple) -> tuple[Tensor, Tensor]:
        patch = self.config.patch_size
        grid = (video[0] // patch[0], video[1] // patch[1], video[2] // patch[2])
        if kind == "camera":
            patches, positions = self._camera(value, grid)
        elif kind == "elements":
            parts = [self._image(image, slot(kind, grid, index)) for index, image in enumerate(value.unbind(1))]
            patches = torch.cat([patches for patches, _ in parts], dim=1)
            positions = torch.cat([positions for _, positions in parts])
        elif kind in _IMAGES:
            patches, positions = self._image(value, slot(kind, grid))
        else:
            if kind == "source" and conditions.source_mask is not None:
                value = torch.cat((value, conditions.source_mask[:, None].to(value.dtype)), dim=1)
            patches, positions = patchify(value, patch), grid_positions(grid, value.device)
        return self.project[kind](patches) + self.bias[kind], positions

    def _image(self, image: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """An image is a video of as many equal frames as a patch has."""
        still = image[:, :, None].expand(-1, -1, self.config.patch_size[0], -1, -1)
        grid = grid_of(still, self.config.patch_size)
        return patchify(still, self.config.patch_size), grid_positions(grid, image.device, first_frame=frame)

    def _camera(self, poses: Tensor, grid: Triple) -> tuple[Tensor, Tensor]:
        """One token for each frame of tokens; it has no place in the picture, so only time turns it."""
        positions = grid_positions((grid[0], 1, 1), poses.device)
        return poses.unflatten(1, (grid[0], -1)).flatten(2), positions


def check(conditions: Conditions, config: VideoDiTConfig, video: Triple, batch: int) -> None:
    """Raise a ValueError that names what does not fit a batch of videos of that many latent frames, rows, columns.

    That is a kind which the model does not know, a shape, a condition without its pair, a value that is no number.
    """
    frames, height, width = video
    channels = config.in_channels
    given = dict(conditions.given())
    if unknown := [kind for kind in given if kind not in config.conditions]:
        raise ValueError(f"Conditions: this model knows {list(config.conditions)}, got {unknown}")
    if (conditions.source is None) != (conditions.source_mask is None):
        got = "source alone" if conditions.source_mask is None else "source_mask alone"
        raise ValueError(f"Conditions: source and source_mask must be given together, got {got}")
    shapes: dict[str, tuple[int, ...]]
    shapes = {"first_frame": (channels, height, width), "last_frame": (channels, height, width)}
    shapes |= dict.fromkeys(_VIDEOS, (channels, frames, height, width))
    shapes |= {"camera": (frames, CAMERA_CHANNELS), "source_mask": (frames, height, width)}
    values = given | ({} if conditions.source_mask is None else {"source_mask": conditions.source_mask})
    for name, value in values.items():
        if name in shapes and value.shape != (batch, *shapes[name]):
            raise ValueError(f"Conditions: {name} must be shaped {[batch, *shapes[name]]}, got {list(value.shape)}")
    _check_images(given, config, batch)
    _check_presence(conditions, given, batch)
    _check_values(conditions, given)


def _check_images(given: Mapping[str, Tensor], config: VideoDiTConfig, batch: int) -> None:
    elements = given.get("elements")
    if elements is not None and not (elements.ndim == 5 and 1 <= elements.shape[1] <= MAX_ELEMENTS):
        raise ValueError(
            f"Conditions: elements must be 1 to {MAX_ELEMENTS} images, [B, E, C, h, w], got {list(elements.shape)}"
        )
    _, rows, columns = config.patch_size
    for name in ("elements", "style"):
        value = given.get(name)
        if value is None:
            continue
        if value.ndim != (5 if name == "elements" else 4):
            raise ValueError(f"Conditions: {name} must be pictures of {batch} samples, got {list(value.shape)}")
        size = value.shape[-2:]
        if len(value) != batch or value.shape[-3] != config.in_channels or size[0] % rows or size[1] % columns:
            rule = f"{batch} samples of {config.in_channels} channels, sides multiples of {rows} and {columns}"
            raise ValueError(f"Conditions: {name} must be {rule}, got {list(value.shape)}")


def _check_presence(conditions: Conditions, given: Mapping[str, Tensor], batch: int) -> None:
    for kind, there in conditions.present.items():
        if kind not in given:
            raise ValueError(f"Conditions: present names {kind!r}, which is not given")
        shape = (batch, given[kind].shape[1]) if kind == "elements" else (batch,)
        if there.shape != shape or there.dtype != torch.bool:
            rule, got = f"shaped {list(shape)} of torch.bool", f"{list(there.shape)} of {there.dtype}"
            raise ValueError(f"Conditions: present[{kind!r}] must be {rule}, got {got}")


def _check_values(conditions: Conditions, given: Mapping[str, Tensor]) -> None:
    for kind, value in given.items():
        held = value[conditions.present[kind]] if kind in conditions.present else value
        if not bool(held.isfinite().all()):
            raise ValueError(f"Conditions: {kind} must be finite, got {held[~held.isfinite()][0].item()}")
    mask = conditions.source_mask
    if mask is not None and not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(f"Conditions: source_mask must lie in [0, 1], got {mask.min().item()} to {mask.max().item()}")


def _presence(conditions: Conditions, kind: str, value: Tensor) -> Tensor:
    there = conditions.present.get(kind)
    if there is not None:
        return there
    shape = value.shape[:2] if kind == "elements" else value.shape[:1]
    return torch.ones(shape, dtype=torch.bool, device=value.device)


def _spread(real: Tensor, num_tokens: int) -> Tensor:
    """[B] or [B, E] for a kind, as [B, tokens] for its tokens."""
    columns = real if real.ndim == 2 else real[:, None]
    return columns.repeat_interleave(num_tokens // columns.shape[1], dim=1)
