"""Footage of a player who looks up and down, in an open world or in a game, and what can be read off generated footage.

Turns are drawn anew for every frame, so that nothing but the command says where the view goes. Prompts name the style
and the place, in as many words each.
"""

import dataclasses
import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from telecine_models.backlot import clip
from telecine_models.backlot.actions import KEYS
from telecine_models.backlot.actions import Actions as Moves
from telecine_models.backlot.styles import Style
from telecine_models.pixels import to_model_range
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.action import Actions

OPEN_WORLD: Style = "open world"
GAME: Style = "block game"
# So that no two seeds, styles or splits share a clip; and turns none of a clip's own random numbers.
_CLIPS_PER_SEED, _CLIPS_PER_SPLIT, _TURNS_STREAM = 1_000_000, 100_000, 51
_FPS = 8
_STEP_DEG = 1.0
_NUM_DIRECTIONS, _NUM_QUANTILES = 32, 99
# A display's pixels do not move at all; those of a world always do.
_STILL = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shoot:
    """What is filmed.

    Attributes:
        split: 0 to learn from, 1 to be judged on.
        reach_deg: the largest turn from one frame to the next.
    """

    style: Style
    split: int
    num_clips: int
    num_frames: int
    side_px: int
    reach_deg: float


@dataclasses.dataclass(frozen=True, eq=False)
class Footage:
    """Clips in model range [N, 3, F, H, W], their prompts [N, L, D], and turns downwards in degrees [N, F - 1]."""

    x0: Tensor
    text: Tensor
    turns_deg: Tensor

    def at(self, index: Tensor) -> "Footage":
        """Some of them."""
        return Footage(self.x0[index], self.text[index], self.turns_deg[index])

    def to(self, device: str) -> "Footage":
        """The same on a device."""
        return Footage(self.x0.to(device), self.text.to(device), self.turns_deg.to(device))

    @property
    def actions(self) -> Actions:
        """What the player did: no key, and a mouse that moves down or up."""
        keys = self.turns_deg.new_zeros((*self.turns_deg.shape, len(KEYS)), dtype=torch.bool)
        return Actions(keys=keys, mouse=torch.stack((torch.zeros_like(self.turns_deg), self.turns_deg), dim=-1))


@functools.lru_cache(maxsize=6)
def footage(shoot: Shoot, seed: int) -> Footage:
    """The footage of a seed, the same whenever it is asked for.

    Raises:
        ValueError: more clips than a split has room for.
    """
    if shoot.num_clips > _CLIPS_PER_SPLIT:
        raise ValueError(f"footage: num_clips must be at most {_CLIPS_PER_SPLIT}, got {shoot.num_clips}")
    block = 2 * shoot.split + (shoot.style == GAME)
    first = seed * _CLIPS_PER_SEED + block * _CLIPS_PER_SPLIT
    frames, prompts, turns = [], [], []
    for clip_seed in range(first, first + shoot.num_clips):
        moves = _moves(shoot, clip_seed)
        shot = clip(
            clip_seed,
            num_frames=shoot.num_frames,
            fps=_FPS,
            width_px=shoot.side_px,
            height_px=shoot.side_px,
            style=shoot.style,
            actions=moves,
        )
        frames.append(torch.from_numpy(shot.frames))
        prompts.append(f"{shoot.style}, {shot.truth['background']['place']}")
        turns.append(torch.from_numpy(moves.mouse_deg[:, 1]))
    text, _ = HashTextEncoder(max_tokens=3).encode(prompts)
    return Footage(to_model_range(torch.stack(frames)), text, torch.stack(turns).to(torch.float32))


def _moves(shoot: Shoot, clip_seed: int) -> Moves:
    rng = np.random.default_rng((clip_seed, _TURNS_STREAM))
    num_turns = shoot.num_frames - 1
    down = rng.uniform(-shoot.reach_deg, shoot.reach_deg, num_turns)
    return Moves(np.zeros((num_turns, len(KEYS)), np.uint8), np.column_stack((np.zeros(num_turns), down)))


def display_of(films: Tensor) -> Tensor:
    """Where a game's display covers the view [H, W]: what is the same in all frames of all films [N, 3, F, H, W]."""
    return films.std(dim=(0, 2)).amax(0) < _STILL


def read_turns(films: Tensor, display: Tensor, reach_deg: float) -> Tensor:
    """By how many degrees the view went down from each frame to the next [N, F - 1].

    A camera that only turns moves the picture in a way that does not depend on depth: a pixel's ray, turned back, says
    where it was before. Of all turns up to half as far again as ``reach_deg``, it is the one whose picture differs
    least; a parabola through its neighbours gives fractions of a degree.

    Args:
        films: [N, 3, F, H, W] in model range, of a lens whose focal length is the shorter side, as Backlot's.
        display: [H, W] what is not looked at, because it does not move with the view.
        reach_deg: the largest turn that is expected.
    """
    soft = _blurred(films)
    before, after = soft[:, :, :-1].transpose(1, 2).flatten(0, 1), soft[:, :, 1:].transpose(1, 2).flatten(0, 1)
    turns = torch.arange(-1.5 * reach_deg, 1.5 * reach_deg + _STEP_DEG / 2, _STEP_DEG)
    shown = (~display).to(films.dtype)
    errors = torch.stack([_error(before, after, shown, float(turn)) for turn in turns], dim=1)
    best = errors.argmin(1).clamp(1, len(turns) - 2)[:, None]
    low, mid, high = (errors.gather(1, best + offset)[:, 0] for offset in (-1, 0, 1))
    part = ((low - high) / (2 * (low + high - 2 * mid)).clamp(min=1e-9)).clamp(-0.5, 0.5)
    read: Tensor = (turns.to(films.device)[best[:, 0]] + part * _STEP_DEG).unflatten(0, (len(films), -1))
    return read


def _blurred(films: Tensor) -> Tensor:
    """Each row mixed with the one below, so that scan lines, which stand still, are gone."""
    below = torch.cat((films[..., 1:, :], films[..., -1:, :]), dim=-2)
    return (films + below) / 2


def _error(before: Tensor, after: Tensor, shown: Tensor, turn_deg: float) -> Tensor:
    """Mean squared difference [N] where both pictures show the world, if the view went down so far."""
    grid = _places_before(before.shape[2], before.shape[3], turn_deg).to(before)
    moved = F.grid_sample(before, grid.expand(len(before), -1, -1, -1), align_corners=False)
    seen = F.grid_sample(shown[None, None], grid, align_corners=False)[0, 0] * (grid[0].abs() <= 1).all(-1) * shown
    return ((moved - after).square().mean(1) * seen).sum((1, 2)) / seen.sum().clamp(min=1e-9)


def _places_before(height: int, width: int, turn_deg: float) -> Tensor:
    """Where each pixel was before the view went down, x and y in -1..1 [1, H, W, 2]."""
    focal = min(height, width)
    y, x = ((torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / focal for size in (height, width))
    angle = torch.deg2rad(torch.tensor(turn_deg, dtype=torch.float64))
    down, ahead = angle.cos() * y + angle.sin(), angle.cos() - angle.sin() * y
    columns = x[None] / ahead[:, None] * (2 * focal / width)
    rows = (down / ahead * (2 * focal / height))[:, None].expand(-1, width)
    return torch.stack((columns, rows), dim=-1)[None]


def following(read_deg: Tensor, commanded_deg: Tensor) -> float:
    """Pearson's correlation of what was read with what was commanded; 0 if nothing ever turned."""
    read, commanded = (each.flatten() - each.mean() for each in (read_deg, commanded_deg))
    return float((read * commanded).sum() / (read.norm() * commanded.norm()).clamp(min=1e-9))


def palette_distance(films: Tensor, other: Tensor) -> float:
    """Sliced Wasserstein-1 distance of the colours of two sets of films [N, 3, F, H, W], in their unit.

    The mean over directions of colour space and over quantiles of how far the quantiles of projected colours lie apart.
    Directions are fixed, so that distances can be compared.
    """
    one, two = (_quantiles(each) for each in (films, other))
    return float((one - two).abs().mean())


def _quantiles(films: Tensor) -> Tensor:
    random = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(3, _NUM_DIRECTIONS, generator=random, dtype=torch.float64), dim=0)
    colours = films.detach().cpu().transpose(0, 1).flatten(1).to(torch.float64).clamp(-1, 1)
    ordered = (colours.T @ directions).sort(dim=0).values
    places = (torch.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES * (len(ordered) - 1)
    return ordered[places.round().long()]
