"""Stochastic steps against known answers: the transition, its log-probability, its divergence, and the recording."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from telecine_models.sampling import Dynamics, Trajectory, linear_times, sample_sde, shifted_times

SDE, CPS = Dynamics("sde", 0.7), Dynamics("cps", 0.8)
BOTH = pytest.mark.parametrize("dynamics", [SDE, CPS], ids=["sde", "cps"])
STEPS = [(0.6, 0.5), (1.0, 0.9), (0.1, 0.0)]
X, V = torch.tensor([[0.3]]), torch.tensor([[-0.8]])


def at(time: float, batch: int = 1) -> Tensor:
    return torch.full((batch,), time)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Policy(torch.nn.Module):
    """A tiny velocity model over videos of 24 values a sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(25, 32), torch.nn.GELU(), torch.nn.Linear(32, 24))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        velocity: Tensor = self.layers(torch.cat([x.flatten(1), t[:, None]], 1))
        return velocity.view_as(x)


def roll_out(policy: Policy, dynamics: Dynamics, seed: int = 0) -> Trajectory:
    start, generator = draw(3, 2, 3, 4, seed=100 + seed), torch.Generator().manual_seed(seed)
    return sample_sde(policy, start, linear_times(10), dynamics, generator)


def log_probs_again(policy: Policy, dynamics: Dynamics, rollout: Trajectory) -> Tensor:
    steps = zip(rollout.x, rollout.x_next, rollout.t, rollout.t_next, strict=True)
    return torch.stack(
        [dynamics.transition(x, policy(x, t), t, t_next).log_prob(x_next) for x, x_next, t, t_next in steps]
    )


# One step


@pytest.mark.parametrize(
    ("times", "mean", "std", "log_prob"),
    [
        (STEPS[0], 0.381225, 0.271109, 0.261296),
        (STEPS[1], 0.306500, 0.700000, -0.687264),
        (STEPS[2], 0.391433, 0.073786, 1.562641),
    ],
)
def test_sde_step_gives_the_known_answers(times: tuple[float, float], mean: float, std: float, log_prob: float) -> None:
    step = SDE.transition(X, V, *map(at, times))
    assert float(step.mean) == pytest.approx(mean, abs=1e-6)
    assert float(step.std) == pytest.approx(std, abs=1e-6)
    assert float(step.log_prob(step.sample(torch.full((1, 1), 0.5)))) == pytest.approx(log_prob, abs=1e-6)


@pytest.mark.parametrize(
    ("times", "mean", "std"),
    [(STEPS[0], 0.386910, 0.475528), (STEPS[1], 0.193435, 0.855951), (STEPS[2], 0.380000, 0.0)],
)
def test_cps_step_gives_the_known_answers(times: tuple[float, float], mean: float, std: float) -> None:
    step = CPS.transition(X, V, *map(at, times))
    assert float(step.mean) == pytest.approx(mean, abs=1e-6)
    assert float(step.std) == pytest.approx(std, abs=1e-6)
    # Without the variance and the constants: the negative squared distance to the mean.
    assert float(step.log_prob(step.mean + 0.5)) == pytest.approx(-0.25)


def test_noise_of_every_sde_step_is_as_published_and_the_first_is_the_noise_level_on_any_schedule() -> None:
    times = linear_times(10)
    step = SDE.transition(torch.zeros(10, 1), torch.zeros(10, 1), times[:-1], times[1:])
    published = [0.7, 0.6641, 0.4427, 0.3381, 0.2711, 0.2214, 0.1807, 0.1449, 0.1107, 0.0738]
    assert step.std.tolist() == pytest.approx(published, abs=5e-5)
    for schedule in (linear_times(3), shifted_times(10, 3.0), shifted_times(7, 6.7, last=0.01)):
        first = Dynamics("sde", 0.4).transition(X, V, schedule[:1], schedule[1:2])
        assert float(first.std) == pytest.approx(0.4, abs=1e-6)
        assert float(first.mean) == pytest.approx(0.3 * (1 - 0.08) - 0.8 * float(schedule[1] - 1), abs=1e-6)


@pytest.mark.parametrize("noise_level", [0.1, 0.8, 1.0])
def test_cps_keeps_the_share_of_data_and_the_total_of_noise(noise_level: float) -> None:
    # For a known pair the next point is (1-t') x0 + c x1 + std e, and its noise c x1 + std e has the deviation t'.
    times, dynamics = shifted_times(9, 3.0), Dynamics("cps", noise_level)
    t, t_next, zero, one = times[:-1], times[1:], torch.zeros(9, 1), torch.ones(9, 1)
    of_data = dynamics.transition((1 - t)[:, None], zero - one, t, t_next).mean[:, 0]
    of_noise = dynamics.transition(t[:, None], one - zero, t, t_next)
    torch.testing.assert_close(of_data, 1 - t_next)
    torch.testing.assert_close((of_noise.mean[:, 0].square() + of_noise.std.square()).sqrt(), t_next)
    torch.testing.assert_close(of_noise.std, t_next * math.sin(noise_level * math.pi / 2))


@pytest.mark.parametrize("times", STEPS)
def test_sde_without_noise_tends_to_the_euler_step(times: tuple[float, float]) -> None:
    step = Dynamics("sde", 1e-4).transition(X, V, *map(at, times))
    assert float(step.mean) == pytest.approx(0.3 - 0.8 * (times[1] - times[0]), abs=1e-6)
    assert float(step.std) < 2e-4


def test_log_prob_is_the_mean_over_the_values_of_a_sample_of_the_normal_log_density() -> None:
    x, v, x_next = draw(3, 2, 3, 4, 5)
    t, t_next = torch.tensor([0.9, 0.4]), torch.tensor([0.6, 0.1])
    step = SDE.transition(x, v, t, t_next)
    normal = torch.distributions.Normal(step.mean, step.std.view(2, 1, 1, 1))
    torch.testing.assert_close(step.log_prob(x_next), normal.log_prob(x_next).mean((1, 2, 3)))


@BOTH
def test_gradient_of_the_log_prob_reaches_the_velocity_and_takes_the_point_as_given(dynamics: Dynamics) -> None:
    x, noise = draw(2, 2, 6)
    v = draw(2, 6, seed=1).requires_grad_()
    t, t_next = torch.tensor([0.9, 0.4]), torch.tensor([0.6, 0.1])
    step = dynamics.transition(x, v, t, t_next)
    step.log_prob(step.sample(noise)).sum().backward()
    # d(mean)/dv by differences; were the point not detached, both would move together and the gradient vanish.
    of_velocity = dynamics.transition(x, v.detach() + 1, t, t_next).mean - step.mean.detach()
    weight = 2 if dynamics.kind == "cps" else 1 / step.std.square()[:, None]
    expected = weight * of_velocity * step.std[:, None] * noise / 6
    torch.testing.assert_close(v.grad, expected, rtol=1e-4, atol=1e-6)


@BOTH
def test_the_next_point_is_differentiable_in_the_velocity(dynamics: Dynamics) -> None:
    v = V.clone().requires_grad_()
    dynamics.transition(X, v, at(0.6), at(0.5)).sample(torch.ones(1, 1)).sum().backward()
    slope = dynamics.transition(X, V + 1, at(0.6), at(0.5)).mean - dynamics.transition(X, V, at(0.6), at(0.5)).mean
    torch.testing.assert_close(v.grad, slope)


@BOTH
def test_a_step_is_computed_in_float32_whatever_the_model_computes_in(dynamics: Dynamics) -> None:
    v = V.to(torch.bfloat16)
    low = dynamics.transition(X, v, at(0.6), at(0.5))
    assert {low.mean.dtype, low.std.dtype, low.log_prob(X).dtype} == {torch.float32}
    assert torch.equal(low.mean, dynamics.transition(X, v.float(), at(0.6), at(0.5)).mean)
    assert dynamics.transition(X.double(), V.double(), at(0.6), at(0.5)).mean.dtype == torch.float32


# The divergence of two velocities


@pytest.mark.parametrize(("times", "expected"), list(zip(STEPS, [0.001054439, 0.000102041, 0.014234923], strict=True)))
def test_kl_of_the_sde_gives_the_known_answers(times: tuple[float, float], expected: float) -> None:
    t, t_next = map(at, times)
    assert float(SDE.kl(V + 0.1, V, t, t_next)) == pytest.approx(expected, rel=2e-6)
    without = float(SDE.kl(V + 0.1, V, t, t_next, times_dt=True))
    assert without == pytest.approx(expected * (times[0] - times[1]), rel=2e-6)
    # Flow-GRPO's closed form, (|dt|/2) (s (1-t)/(2t) + 1/s)^2 |dv|^2, and its form in code, |dm|^2 / (2 s^2).
    sigma, dt = float(SDE.transition(X, V, t, t_next).std) / math.sqrt(times[0] - times[1]), times[0] - times[1]
    closed = dt / 2 * (sigma * (1 - times[0]) / (2 * times[0]) + 1 / sigma) ** 2 * 0.01
    assert closed == pytest.approx(expected, rel=1e-5)


@BOTH
def test_kl_is_the_divergence_of_the_two_normal_distributions_from_any_point(dynamics: Dynamics) -> None:
    x, ours, theirs = draw(3, 2, 3, 4)
    t, t_next = torch.tensor([0.9, 0.4]), torch.tensor([0.6, 0.1])
    steps = [dynamics.transition(x, v, t, t_next) for v in (ours, theirs)]
    normals = [torch.distributions.Normal(step.mean, step.std.view(2, 1, 1)) for step in steps]
    expected = torch.distributions.kl_divergence(*normals).mean((1, 2))
    torch.testing.assert_close(dynamics.kl(ours, theirs, t, t_next), expected, rtol=1e-4, atol=1e-6)


@BOTH
def test_kl_is_zero_for_equal_velocities_and_positive_with_a_gradient_otherwise(dynamics: Dynamics) -> None:
    ours, theirs = draw(2, 3, 4)
    t, t_next = torch.tensor([1.0, 0.7, 0.2]), torch.tensor([0.8, 0.5, 0.1])
    assert torch.equal(dynamics.kl(ours, ours.clone(), t, t_next), torch.zeros(3))
    apart = dynamics.kl(ours.requires_grad_(), theirs, t, t_next)
    assert (apart > 0).all()
    apart.sum().backward()
    assert (ours.grad * (ours - theirs).detach() > 0).all()


# A rollout


@BOTH
def test_a_rollout_records_a_chain_of_steps_from_noise_to_data(dynamics: Dynamics) -> None:
    policy, start, times = Policy(), draw(3, 2, 3, 4), linear_times(10)
    rollout = sample_sde(policy, start, times, dynamics, torch.Generator().manual_seed(0))
    assert torch.equal(rollout.x[0], start)
    assert torch.equal(rollout.x[1:], rollout.x_next[:-1])
    assert torch.equal(rollout.t, times[:-1, None].expand(10, 3))
    assert torch.equal(rollout.t_next, times[1:, None].expand(10, 3))
    last = rollout.x[-1] - 0.1 * policy(rollout.x[-1], rollout.t[-1])
    torch.testing.assert_close(rollout.x0, last)
    assert not rollout.log_prob.requires_grad
    assert {getattr(rollout, field.name).dtype for field in dataclasses.fields(rollout)} == {torch.float32}


def test_the_last_step_of_cps_is_the_predicted_data_itself() -> None:
    rollout = roll_out(Policy(), CPS)
    torch.testing.assert_close(rollout.x_next[-1], rollout.x0)
    assert torch.equal(rollout.log_prob[-1], torch.zeros(3))


@BOTH
def test_ratio_of_an_unchanged_policy_is_one_bit_for_bit_and_its_loss_still_has_a_gradient(dynamics: Dynamics) -> None:
    policy = Policy()
    rollout = roll_out(policy, dynamics)
    ratio = (log_probs_again(policy, dynamics, rollout) - rollout.log_prob).exp()
    assert torch.equal(ratio, torch.ones(10, 3))
    (-ratio[:-1] * torch.tensor([1.0, -0.5, -0.5])).mean().backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in policy.parameters())


def test_points_stored_in_low_precision_need_log_probs_of_the_rounded_points() -> None:
    policy = Policy()
    exact = roll_out(policy, SDE)
    stored = dataclasses.replace(exact, x=exact.x.bfloat16().float(), x_next=exact.x_next.bfloat16().float())
    of_stored = log_probs_again(policy, SDE, stored).detach()
    assert float((of_stored - exact.log_prob).abs().max()) > 1e-4
    assert torch.equal(log_probs_again(policy, SDE, stored).detach(), of_stored)
    # A point handed over in bfloat16 is taken as it was rounded.
    step = SDE.transition(stored.x[3], policy(stored.x[3], stored.t[3]), stored.t[3], stored.t_next[3])
    assert torch.equal(step.log_prob(stored.x_next[3].bfloat16()).detach(), of_stored[3])


@BOTH
def test_a_step_towards_an_advantage_makes_the_recorded_steps_likelier(dynamics: Dynamics) -> None:
    policy = Policy()
    rollout = roll_out(policy, dynamics)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    (-(log_probs_again(policy, dynamics, rollout) - rollout.log_prob).exp()[:-1]).mean().backward()
    optimizer.step()
    again = log_probs_again(policy, dynamics, rollout).detach()[:-1]
    assert float(again.mean()) > float(rollout.log_prob[:-1].mean())


def test_noise_comes_from_the_generator_or_is_given() -> None:
    policy, start, times = Policy(), draw(3, 2, 3, 4), linear_times(5)
    first, again, other = (
        sample_sde(policy, start, times, SDE, torch.Generator().manual_seed(seed)).x_next[-1] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(1)
    given = torch.stack([torch.randn(start.shape, generator=generator) for _ in range(5)])
    assert torch.equal(sample_sde(policy, start, times, SDE, given).x_next[-1], first)


def test_the_state_stays_in_float32_when_noise_and_model_are_in_low_precision() -> None:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return torch.full_like(x, 10.0, dtype=torch.bfloat16)

    start, quiet = torch.full((2, 1), 100.0, dtype=torch.bfloat16), torch.zeros(100, 2, 1)
    # Next to no noise: a hundred steps of 0.1, each smaller than bfloat16 can see beside 100.
    rollout = sample_sde(denoise, start, linear_times(100), Dynamics("cps", 1e-6), quiet)
    assert rollout.x0.flatten().tolist() == pytest.approx([90.0, 90.0], abs=1e-3)


# Wrong settings


def test_a_wrong_dynamics_is_named() -> None:
    for level in (0.0, -0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="noise_level must be positive and finite, got"):
            Dynamics("sde", level)
    with pytest.raises(ValueError, match="noise_level of cps must be at most 1, got 1.5"):
        Dynamics("cps", 1.5)


def test_an_unknown_kind_is_named(unchecked_signatures: None) -> None:
    with pytest.raises(ValueError, match="kind must be 'sde' or 'cps', got 'ode'"):
        Dynamics("ode")


@BOTH
@pytest.mark.parametrize("times", [(0.5, 0.5), (0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.5)])
def test_times_out_of_order_are_named(dynamics: Dynamics, times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="times must satisfy 0 <= t_next < t <= 1, got t="):
        dynamics.transition(X, V, *map(at, times))
    with pytest.raises(ValueError, match="times must satisfy"):
        dynamics.kl(V, V, *map(at, times))


def test_a_step_without_noise_has_no_divergence() -> None:
    with pytest.raises(ValueError, match="cps has none to t_next=0"):
        CPS.kl(V, V, at(0.1), at(0.0))


def test_a_wrong_rollout_is_named() -> None:
    with pytest.raises(ValueError, match="times must hold at least a start and an end, got 1"):
        sample_sde(Policy(), X, torch.ones(1), SDE, torch.Generator())
    with pytest.raises(ValueError, match=r"noise must have the shape \(4, 1, 1\) \(one a step\), got \(3, 1, 1\)"):
        sample_sde(Policy(), X, linear_times(4), SDE, torch.zeros(3, 1, 1))
