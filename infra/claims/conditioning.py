"""The runs of fulldit_composes: a base that knows text alone, then conditions in one sequence, or an adapter for each.

Both arms begin with the base of their seed and meet the same shots with the same noise, each shot with one condition.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from adapters import Adapter, composed, inherit, model_of
from fit import Fitted, Recipe, batch_of, eval_noise_of, fit, flops_of, keep, kept, noise_of, velocity_loss
from runs import Outcome
from shot_readings import misses
from telecine_components.training.randomness import torch_seed
from telecine_models.pixels import to_frames
from telecine_models.sampling.ode import solve_ode
from telecine_models.sampling.schedule import shifted_times
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT
from wall_shots import KINDS, Shots, draw_shots

ONE_SEQUENCE, ADAPTERS = "one_sequence", "adapters"
Given = tuple[str, ...]
"""The kinds of conditions that a film is made from, beside its caption."""
TEXT: Given = ()
SINGLES: tuple[Given, ...] = tuple((kind,) for kind in KINDS)
PAIRS: tuple[Given, ...] = tuple(itertools.combinations(KINDS, 2))
TRIPLE: Given = KINDS
TOGETHER = (*PAIRS, TRIPLE)
"""What no model of either arm has ever been given together."""
NUM_SHOWN = 5
Sheet = dict[str, npt.NDArray[np.uint8]]
"""Films for people, uint8 [F, H, W, 3], by their names."""
Denoise = Callable[[Tensor, Tensor, Shots, Given], Tensor]
"""(x [B, 3, F, H, W], t [B], shots, kinds) to the velocity."""
_WEIGHTS_STREAM, _TRAIN_STREAM, _HELD_OUT_STREAM = 52, 53, 54


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Shots, models and time to learn, the same for both arms.

    Attributes:
        num_draws: of flow times and noise for each held-out shot.
        adapter_layers: blocks of an adapter's branch; a ControlNet copies half of the model.
        base_steps: of text alone, each with all of a batch's shots.
        num_steps: of the one sequence, each with ``batch_per_kind`` shots for each kind of condition.
        time_shift: of flow times in training and sampling (arXiv 2403.03206): above 1 there is more noise.
    """

    num_shots: int
    num_held_out: int
    num_draws: int
    num_frames: int
    side_px: int
    patch_size: tuple[int, int, int]
    num_layers: int
    num_heads: int
    head_dim: int
    adapter_layers: int
    base_steps: int
    base_learning_rate: float
    num_steps: int
    batch_per_kind: int
    learning_rates: tuple[float, ...]
    adapter_learning_rates: tuple[float, ...]
    time_shift: float
    sampler_steps: int

    @property
    def config(self) -> VideoDiTConfig:
        """Of the base."""
        return VideoDiTConfig(
            patch_size=self.patch_size, num_layers=self.num_layers, num_heads=self.num_heads, head_dim=self.head_dim
        )

    @property
    def batch_size(self) -> int:
        """Shots of a step, all kinds together."""
        return len(KINDS) * self.batch_per_kind

    def rates(self, arm: str) -> tuple[float, ...]:
        """Learning rates of which an arm is taken at the best."""
        return self.learning_rates if arm == ONE_SEQUENCE else self.adapter_learning_rates


@functools.lru_cache(maxsize=4)
def shots_of(setup: Setup, seed: int, stream: int, num_shots: int) -> Shots:
    """Shots of a seed."""
    return draw_shots((seed, stream), num_shots, setup.num_frames, setup.side_px)


def train_shots(setup: Setup, seed: int) -> Shots:
    """What both arms of a seed learn from."""
    return shots_of(setup, seed, _TRAIN_STREAM, setup.num_shots)


def held_out_shots(setup: Setup, seed: int) -> Shots:
    """What both arms of a seed are judged on."""
    return shots_of(setup, seed, _HELD_OUT_STREAM, setup.num_held_out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """A model of text alone, kept in a folder for both arms of its seed."""

    arm: str = "base"
    seed: int
    setup: Setup
    device: str
    folder: str

    def __call__(self) -> Outcome:
        """Train and keep."""
        torch.manual_seed(torch_seed(self.seed, _WEIGHTS_STREAM))
        model, setup = model_of(self.setup.config, self.device), self.setup
        fitted = fit(
            model,
            _losses(setup, self.seed, self.device, 0, {TEXT: unified(model)}),
            Recipe(num_steps=setup.base_steps, learning_rate=setup.base_learning_rate),
        )
        with fitted.ema.swapped_into(model):
            keep(model, self.folder, self.seed)
        return Outcome(figures={"final_loss": fitted.curve[-1][1]}, curves={"train_loss": fitted.curve})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioned:
    """One arm on one seed: from the base to films that follow conditions."""

    arm: str
    seed: int
    setup: Setup
    learning_rate: float
    num_steps: int
    device: str
    folder: str

    def __call__(self) -> Outcome:
        """Train and judge."""
        torch.manual_seed(torch_seed(self.seed, _WEIGHTS_STREAM, 1))
        weights = kept(self.folder, self.seed)
        return {ONE_SEQUENCE: self._one_sequence, ADAPTERS: self._adapters}[self.arm](weights)

    def _one_sequence(self, weights: Mapping[str, Tensor]) -> Outcome:
        config = dataclasses.replace(self.setup.config, conditions=KINDS)
        model = inherit(model_of(config, self.device), weights)
        fitted = self._fitted(model, dict.fromkeys(SINGLES, unified(model)))
        return self._outcome({"": (model, fitted)}, unified(model))

    def _adapters(self, weights: Mapping[str, Tensor]) -> Outcome:
        config, num_layers = self.setup.config, self.setup.adapter_layers
        frozen = inherit(model_of(config, self.device), weights).requires_grad_(False)
        made = {kind: Adapter(kind, config, weights, num_layers).to(self.device) for kind in KINDS}
        denoise = beside(frozen, made)
        trained = {f"_{kind}": (each, self._fitted(each, {(kind,): denoise})) for kind, each in made.items()}
        return self._outcome(trained, denoise)

    def _fitted(self, model: nn.Module, by: Mapping[Given, Denoise]) -> Fitted:
        losses = _losses(self.setup, self.seed, self.device, self.setup.base_steps, by)
        return fit(model, losses, Recipe(num_steps=self.num_steps, learning_rate=self.learning_rate))

    def _outcome(self, trained: Mapping[str, tuple[nn.Module, Fitted]], denoise: Denoise) -> Outcome:
        with contextlib.ExitStack() as averages:
            for model, fitted in trained.values():
                averages.enter_context(fitted.ema.swapped_into(model.eval()))
            figures, films = judged(self.setup, self.seed, self.device, denoise)
        curves = {f"train_loss{name}": fitted.curve for name, (_, fitted) in trained.items()}
        return Outcome(figures=figures, curves=curves, films=films)


def unified(model: VideoDiT) -> Denoise:
    """All conditions as tokens of the model's one sequence."""

    def denoise(x: Tensor, t: Tensor, shots: Shots, given: Given) -> Tensor:
        velocity: Tensor = model(x, t, shots.text, shots.real, conditions=shots.conditions(given))
        return velocity

    return denoise


def beside(frozen: VideoDiT, made: Mapping[str, Adapter]) -> Denoise:
    """Each condition through its adapter."""

    def denoise(x: Tensor, t: Tensor, shots: Shots, given: Given) -> Tensor:
        return composed(frozen, [made[kind] for kind in given], x, t, shots)

    return denoise


def _losses(
    setup: Setup, seed: int, device: str, first_step: int, by: Mapping[Given, Denoise]
) -> Callable[[nn.Module, int], Tensor]:
    """The mean loss of a step's shots: a share of the batch for each kind of condition, all of it for text alone."""
    train = train_shots(setup, seed)

    def losses(_: nn.Module, step: int) -> Tensor:
        index = batch_of(len(train), setup.batch_size, seed, first_step + step)
        times, noise = noise_of(train.x0[index].shape, seed, first_step + step, shift=setup.time_shift)
        return mean_loss(train.at(index).to(device), times.to(device), noise.to(device), by)

    return losses


def mean_loss(batch: Shots, times: Tensor, noise: Tensor, by: Mapping[Given, Denoise]) -> Tensor:
    """As training has it, for one batch: a shot that belongs to the share of a kind is given that kind."""
    parts = []
    for given, denoise in by.items():
        share = torch.arange(len(batch), device=times.device)
        if given:
            share = share.view(len(KINDS), -1)[KINDS.index(given[0])]
        shots = batch.at(share)
        velocity = functools.partial(_given, denoise, shots, given)
        parts.append(velocity_loss(velocity, shots.x0, times[share], noise[share]).mean())
    return torch.stack(parts).mean()


def _given(denoise: Denoise, shots: Shots, given: Given, x: Tensor, t: Tensor) -> Tensor:
    return denoise(x, t, shots, given)


@torch.no_grad()
def judged(setup: Setup, seed: int, device: str, denoise: Denoise) -> tuple[dict[str, float], Sheet]:
    """Losses and films of whatever is given, and what follows from them.

    ``followed`` is the mean, over all that was never given together, of what films score in each of what they are
    given: 1 is how well the true films are read, 0 how well the films of other shots would do, the best that can be had
    from text alone. ``followed_alone`` is that over what is given one at a time, and ``missed`` what ``followed`` lacks
    of 1. ``saved`` and ``saved_alone`` are the shares of the loss with text alone that giving the same saves.
    """
    shots = held_out_shots(setup, seed).to(device)
    noise = eval_noise_of(shots.x0.shape, seed, 0)[1].to(device)
    scale, figures = Scale.of(shots), dict[str, float]()
    films = shown("truth", shots.x0)
    for given in (TEXT, *SINGLES, *TOGETHER):
        made = sampled(setup, noise, functools.partial(_given, denoise, shots, given))
        figures[figure("loss", given)] = held_out_loss(setup, seed, shots, denoise, given)
        figures[figure("levels_off", given)] = float((made.clamp(-1, 1) - shots.x0).abs().mean()) * 127.5
        figures |= {figure(kind, given): score for kind, score in scale.scores(made, shots).items()}
        films |= shown("_".join(given) or "text", made)
    losses = {given: figures[figure("loss", given)] for given in (TEXT, *SINGLES, *TOGETHER)}
    followed = fmean(fmean(figures[figure(kind, given)] for kind in given) for given in TOGETHER)
    return figures | {
        "followed": followed,
        "followed_alone": fmean(figures[figure(kind, (kind,))] for kind in KINDS),
        "missed": 1 - followed,
        "saved": fmean(1 - losses[given] / losses[TEXT] for given in TOGETHER),
        "saved_alone": fmean(1 - losses[given] / losses[TEXT] for given in SINGLES),
    }, films


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean misses of the true films, ``best``, and of those of other shots, ``other``, by kind."""

    best: Mapping[str, float]
    other: Mapping[str, float]

    @classmethod
    def of(cls, shots: Shots) -> "Scale":
        """The scale of at least two shots."""
        return cls(_mean_misses(shots.x0, shots), _mean_misses(shots.x0.roll(1, 0), shots))

    def scores(self, films: Tensor, shots: Shots) -> dict[str, float]:
        """How well films follow each kind; see :func:`judged`."""
        found = _mean_misses(films, shots)
        return {
            kind: (self.other[kind] - found[kind]) / (self.other[kind] - self.best[kind] or math.nan) for kind in KINDS
        }


def _mean_misses(films: Tensor, shots: Shots) -> dict[str, float]:
    return {kind: float(each.mean()) for kind, each in misses(films, shots).items()}


def figure(name: str, given: Given) -> str:
    """Under what name a loss, or the score of a kind, is kept."""
    return f"{name}_given_{'_'.join(given) or 'text'}"


def held_out_loss(setup: Setup, seed: int, shots: Shots, denoise: Denoise, given: Given) -> float:
    """Flow-matching loss at draws of time and noise that are the same for both arms and whatever is given."""
    velocity, losses = functools.partial(_given, denoise, shots, given), []
    for draw in range(1, 1 + setup.num_draws):
        drawn = eval_noise_of(shots.x0.shape, seed, draw, shift=setup.time_shift)
        times, noise = (each.to(shots.x0.device) for each in drawn)
        losses.append(velocity_loss(velocity, shots.x0, times, noise).mean())
    return float(torch.stack(losses).mean())


def sampled(setup: Setup, noise: Tensor, velocity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Films in model range [N, 3, F, H, W]."""
    return solve_ode(velocity, noise, shifted_times(setup.sampler_steps, setup.time_shift))


def shown(name: str, films: Tensor) -> Sheet:
    """The first films as uint8 [F, H, W, 3], named and numbered."""
    return {f"{name} {index}": each.numpy() for index, each in enumerate(to_frames(films[:NUM_SHOWN].cpu()))}


def steps_of(setup: Setup) -> dict[str, int]:
    """Steps of each arm, of the adapters each, that come to as many FLOPs."""
    together, apart = step_flops(setup)
    return {ONE_SEQUENCE: setup.num_steps, ADAPTERS: max(1, round(setup.num_steps * together / apart))}


@functools.lru_cache
def step_flops(setup: Setup) -> tuple[int, int]:
    """FLOPs of a step's matrix products, forwards and backwards: of the one sequence, and of all adapters together."""
    torch.manual_seed(0)
    base = model_of(setup.config)
    model = inherit(model_of(dataclasses.replace(setup.config, conditions=KINDS)), base.state_dict())
    made = {kind: Adapter(kind, setup.config, base.state_dict(), setup.adapter_layers) for kind in KINDS}
    batch = draw_shots((0, _TRAIN_STREAM), setup.batch_size, setup.num_frames, setup.side_px)
    times, noise = noise_of(batch.x0.shape, 0, 0)
    denoise = beside(base.requires_grad_(False), made)

    def counted(by: Denoise) -> int:
        return flops_of(lambda: mean_loss(batch, times, noise, dict.fromkeys(SINGLES, by)))

    return counted(unified(model)), counted(denoise)
