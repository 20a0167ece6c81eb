"""Stochastic sampling whose every step has a log-probability, which reinforcement learning needs.

Two dynamics. ``sde`` is the stochastic equation with the marginals of the flow, dx = [v + s^2/(2t) (x + (1-t) v)] dt
+ s dw with s = a sqrt(t / (1-t)) (Flow-GRPO, arXiv 2505.05470). ``cps`` splits the noise of the next point into a
predicted and a fresh part, x' = (1-t') x0 + sqrt(t'^2 - s^2) x1 + s e with s = t' sin(a pi/2), so that no more noise
is left in x' than its time says (Flow-CPS, arXiv 2509.05952); its samples do not follow the marginals of the flow.
"""

import dataclasses
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from telecine_models.sampling.ode import Denoise

LOG_SQRT_2PI = math.log(2 * math.pi) / 2


@dataclasses.dataclass(frozen=True)
class Transition:
    """The normal distribution of the next point, N(mean, std^2), in float32.

    ``simplified`` leaves the variance and the constants out of the log-probability, as Flow-CPS does.
    """

    mean: Float[Tensor, "batch axis *axes"]
    std: Float[Tensor, " batch"]
    simplified: bool

    def sample(self, noise: Float[Tensor, "batch axis *axes"]) -> Float[Tensor, "batch axis *axes"]:
        """The next point for standard normal ``noise``; differentiable in the velocity."""
        return self.mean + _spread(self.std, self.mean) * noise

    def log_prob(self, x_next: Float[Tensor, "batch axis *axes"]) -> Float[Tensor, " batch"]:
        """Log-probability of a point, as a mean over all axes but the batch; Flow-GRPO's clip ranges are made for it.

        The gradient reaches the velocity through the mean alone; ``x_next`` is a constant, even if drawn from here.
        """
        error = (x_next.detach().to(torch.float32) - self.mean).square().flatten(1).mean(1)
        if self.simplified:
            return -error
        return -error / (2 * self.std.square()) - self.std.log() - LOG_SQRT_2PI


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """How a step is randomised: the kind, and the noise level a (0.7 in Flow-GRPO, 0.8 in Flow-CPS).

    Raises:
        ValueError: an unknown kind, or a level that is not above 0 (``solve_ode`` samples without noise), not finite,
            or above 1 for ``cps``.
    """

    kind: Literal["sde", "cps"] = "sde"
    noise_level: float = 0.7

    def __post_init__(self) -> None:
        if self.kind not in ("sde", "cps"):
            raise ValueError(f"Dynamics: kind must be 'sde' or 'cps', got {self.kind!r}")
        if not (math.isfinite(self.noise_level) and self.noise_level > 0):
            raise ValueError(f"Dynamics: noise_level must be positive and finite, got {self.noise_level}")
        if self.kind == "cps" and self.noise_level > 1:
            raise ValueError(f"Dynamics: noise_level of cps must be at most 1, got {self.noise_level}")

    def transition(
        self,
        x: Float[Tensor, "batch axis *axes"],
        velocity: Float[Tensor, "batch axis *axes"],
        t: Float[Tensor, " batch"],
        t_next: Float[Tensor, " batch"],
    ) -> Transition:
        """Where the step from ``x`` at ``t`` to ``t_next`` leads; every sample has times of its own.

        ``transition(…).log_prob(x_next)`` of a recorded step is its log-probability under another velocity.

        Raises:
            ValueError: times that do not satisfy 0 <= t_next < t <= 1.
        """
        of_x, of_velocity, std = self._coefficients(t, t_next)
        x, velocity = x.to(torch.float32), velocity.to(torch.float32)
        mean = _spread(of_x, x) * x + _spread(of_velocity, x) * velocity
        return Transition(mean, std, simplified=self.kind == "cps")

    def kl(
        self,
        velocity: Float[Tensor, "batch axis *axes"],
        reference: Float[Tensor, "batch axis *axes"],
        t: Float[Tensor, " batch"],
        t_next: Float[Tensor, " batch"],
        *,
        times_dt: bool = False,
    ) -> Float[Tensor, " batch"]:
        """KL divergence between the steps of two velocities from one point, as a mean over all axes but the batch.

        Both are normal with one variance, so it is |difference of the means|^2 / (2 std^2), whatever the point.
        ``times_dt`` multiplies by |t - t_next|, which cancels the step in the variance of ``sde``: the form of
        Flow-GRPO's code, whose weight is about ten times larger at ten steps.

        Raises:
            ValueError: times that do not satisfy 0 <= t_next < t <= 1, or a step without noise (the last of ``cps``).
        """
        _, of_velocity, std = self._coefficients(t, t_next)
        if not (std > 0).all():
            raise ValueError(f"Dynamics: kl needs noise in every step, and {self.kind} has none to t_next=0")
        apart = (velocity.to(torch.float32) - reference.to(torch.float32)).square().flatten(1).mean(1)
        divergence = apart * (of_velocity / std).square() / 2
        return divergence * (t - t_next).to(divergence.dtype) if times_dt else divergence

    def _coefficients(self, t: Tensor, t_next: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of x and of the velocity in the mean, and the standard deviation."""
        t, t_next = t.to(torch.float32), t_next.to(torch.float32)
        if not ((t_next >= 0) & (t_next < t) & (t <= 1)).all():
            raise ValueError(
                f"Dynamics: times must satisfy 0 <= t_next < t <= 1, got t={t.tolist()}, t_next={t_next.tolist()}"
            )
        if self.kind == "sde":
            return _sde_coefficients(t, t_next, self.noise_level)
        return _cps_coefficients(t, t_next, self.noise_level)


def _sde_coefficients(t: Tensor, t_next: Tensor, noise_level: float) -> tuple[Tensor, Tensor, Tensor]:
    dt = t_next - t
    # The variance has a pole at t=1. There the next time stands in, which makes the standard deviation of a first
    # step the noise level itself, on every schedule.
    variance = noise_level**2 * t / (1 - torch.where(t == 1, t_next, t))
    # Noise widens the marginal, the score -(x + (1-t) v)/t narrows it again.
    pull = variance / (2 * t)
    return 1 + pull * dt, (1 + pull * (1 - t)) * dt, (variance * -dt).sqrt()


def _cps_coefficients(t: Tensor, t_next: Tensor, noise_level: float) -> tuple[Tensor, Tensor, Tensor]:
    # x0 = x - t v and x1 = x + (1-t) v; the parts of the noise are the legs of a right triangle over t_next.
    data, kept = 1 - t_next, t_next * math.cos(noise_level * math.pi / 2)
    return data + kept, kept * (1 - t) - data * t, t_next * math.sin(noise_level * math.pi / 2)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One batch walked from noise to data, step by step, in float32. Policy losses leave the last step out."""

    x: Float[Tensor, "steps batch axis *axes"]
    """The point before each step."""
    x_next: Float[Tensor, "steps batch axis *axes"]
    """The point after each step; of the last one, the sample with the noise of that step."""
    t: Float[Tensor, "steps batch"]
    t_next: Float[Tensor, "steps batch"]
    log_prob: Float[Tensor, "steps batch"]
    """Log-probability of each step that was taken."""
    x0: Float[Tensor, "batch axis *axes"]
    """The data that the last step predicted, x - t v: the sample without the noise of that step."""


@torch.no_grad()
def sample_sde(
    denoise: Denoise,
    x: Float[Tensor, "batch axis *axes"],
    times: Float[Tensor, " times"],
    dynamics: Dynamics,
    noise: torch.Generator | Float[Tensor, "steps batch axis *axes"],
) -> Trajectory:
    """Walk ``x`` from the first of ``times`` to the last, and record what the log-probabilities are made of.

    ``noise`` is standard normal, one tensor a step, or a generator of the CPU, where it is drawn because devices
    number their random streams differently. ``denoise`` is handed the recorded points themselves, in float32, so the
    same model gives the same log-probabilities again, bit for bit. A rollout that is stored in lower precision needs
    its log-probabilities computed anew from what was stored.

    Raises:
        ValueError: fewer than two times, times that do not fall within [0, 1], or noise of another shape.
    """
    if len(times) < 2:
        raise ValueError(f"sample_sde: times must hold at least a start and an end, got {len(times)}")
    shape = (len(times) - 1, *x.shape)
    if isinstance(noise, Tensor) and noise.shape != shape:
        raise ValueError(f"sample_sde: noise must have the shape {shape} (one a step), got {tuple(noise.shape)}")
    times = times.to(x.device, torch.float32)
    t, t_next = (part[:, None].expand(-1, len(x)) for part in (times[:-1], times[1:]))
    path, log_probs = [x.to(torch.float32)], []
    for index in range(len(t)):
        drawn = noise[index] if isinstance(noise, Tensor) else torch.randn(x.shape, generator=noise)
        velocity = denoise(path[-1], t[index]).to(torch.float32)
        step = dynamics.transition(path[-1], velocity, t[index], t_next[index])
        path.append(step.sample(drawn.to(path[-1])))
        log_probs.append(step.log_prob(path[-1]))
    points = torch.stack(path)
    x0 = path[-2] - times[-2] * velocity
    return Trajectory(points[:-1], points[1:], t, t_next, torch.stack(log_probs), x0)


def _spread(per_sample: Tensor, x: Tensor) -> Tensor:
    """One value a sample, shaped to multiply ``x``."""
    return per_sample.view(-1, *[1] * (x.ndim - 1))
