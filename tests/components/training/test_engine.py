"""The loop: what a step does, where a run goes on, when it stops."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine_components.training import checkpoint
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.ema import Ema
from telecine_components.training.engine import Engine, StepResult, TrainingConfig, deterministic, train
from telecine_components.training.loader import Batch
from telecine_components.training.randomness import generator

CONFIG = TrainingConfig(
    num_steps=12, batch_size=4, learning_rate=0.05, warmup_steps=3, weight_decay=0.1, checkpoint_every_steps=5
)


def small_net(width: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.GELU(), torch.nn.Linear(width, 6))


def batches(position: int, batch_size: int) -> Batch:
    return Batch(torch.randn(batch_size, 6, generator=generator(1, position)), [""] * batch_size)


def loss(model: torch.nn.Module, batch: Batch, step: int) -> torch.Tensor:
    noise = torch.randn(batch.x0.shape, generator=generator(2, step))
    predicted: torch.Tensor = model(batch.x0 + 0.1 * noise)
    return (predicted - 3 * batch.x0).square().mean()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    store, digests = Store(f"file://{tmp_path}/store"), Digests(tmp_path)
    return _checkpoints(store, digests, tmp_path / "scratch")


def _checkpoints(store: Store, digests: Digests, scratch: Path) -> Checkpoints:
    return Checkpoints(
        store, digests, work_prefix="work/test/key", attempt="one", scratch=scratch, before_commit=lambda: ()
    )


def run_to_end(
    engine: Engine, checkpoints: Checkpoints, stop_after: int = 10**9
) -> tuple[TrainingState, list[StepResult]]:
    seen: list[StepResult] = []

    def observe(result: StepResult) -> dict[str, float]:
        seen.append(result)
        return {"train/grad_norm": result.grad_norm}

    with deterministic(1):
        state = train(
            engine,
            batches=batches,
            loss=loss,
            checkpoints=checkpoints,
            observe=observe,
            stop_requested=lambda: len(seen) >= stop_after,
        )
    return state, seen


def test_steps_are_those_of_a_bare_loop_with_adamw(checkpoints: Checkpoints) -> None:
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, betas=(0.9, 0.95), weight_decay=0.1)
    expected = []
    with deterministic(1):
        for step in range(CONFIG.num_steps):
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (step + 1) / 3)
            value = loss(net, batches(step * 4, 4), step)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            expected.append(value.item())
    engine = Engine(small_net(), CONFIG)
    _, seen = run_to_end(engine, checkpoints)
    # The last bits may differ: gradients that DeepSpeed has reduced lie elsewhere, and sums depend on alignment.
    assert [result.loss for result in seen] == pytest.approx(expected, rel=1e-5)
    for ours, bare in zip(engine.module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, bare, rtol=1e-4, atol=1e-6)


def test_the_learning_rate_rises_to_a_constant() -> None:
    rates = [CONFIG.learning_rate_at(step) for step in range(5)]
    assert rates == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05, 0.05])


def test_a_stopped_run_saves_says_retry_and_goes_on_to_the_same_weights(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    whole = Engine(small_net(), CONFIG)
    other = _checkpoints(Store(f"file://{tmp_path}/other"), Digests(tmp_path), tmp_path / "s")
    expected, _ = run_to_end(whole, other)
    with pytest.raises(RetryLater, match="after step 7 of 12"):
        run_to_end(Engine(small_net(), CONFIG), checkpoints, stop_after=7)
    resumed = Engine(small_net(), CONFIG)
    state, seen = run_to_end(resumed, checkpoints)
    assert [result.step for result in seen] == [8, 9, 10, 11, 12]
    assert state == expected
    for name, tensor in whole.ema.weights.items():
        assert torch.equal(tensor, resumed.ema.weights[name])
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name])


def test_old_checkpoints_are_removed_and_the_last_step_is_kept(checkpoints: Checkpoints) -> None:
    run_to_end(Engine(small_net(), CONFIG), checkpoints)
    assert checkpoints.steps() == [10, 12]


def test_a_checkpoint_holds_weights_average_and_optimizer_in_safetensors_and_json(tmp_path: Path) -> None:
    engine = Engine(small_net(), CONFIG)
    with deterministic(1):
        engine.step(loss(engine.model, batches(0, 4), 0), 0)
    engine.save(tmp_path, TrainingState(step=1, position=4, history={"train/loss": [(1, 0.1 + 0.2)]}))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert set(load_file(tmp_path / "weights.safetensors")) == set(engine.module.state_dict())
    assert "0.weight.exp_avg_sq" in load_file(tmp_path / "optimizer.safetensors")
    fresh = Engine(small_net(), CONFIG)
    assert fresh.load(tmp_path) == TrainingState(step=1, position=4, history={"train/loss": [(1, 0.1 + 0.2)]})
    again = tmp_path / "again"
    again.mkdir()
    fresh.save(again, TrainingState(step=1, position=4, history={"train/loss": [(1, 0.1 + 0.2)]}))
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_a_checkpoint_of_another_architecture_or_format_is_refused(tmp_path: Path) -> None:
    engine = Engine(small_net(), CONFIG)
    engine.save(tmp_path, TrainingState())
    with pytest.raises(InputError, match="another architecture"):
        Engine(small_net(width=9), CONFIG).load(tmp_path)
    (tmp_path / "state.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match=f"format must be {checkpoint.FORMAT}"):
        engine.load(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_change() -> None:
    engine = Engine(small_net(), CONFIG)
    before = [parameter.clone() for parameter in engine.module.parameters()]
    with pytest.raises(FloatingPointError, match="step 0"):
        engine.step(loss(engine.model, batches(0, 4), 0) * float("nan"), 0)
    assert all(torch.equal(old, new) for old, new in zip(before, engine.module.parameters(), strict=True))


def test_the_average_follows_the_weights_and_is_swapped_in_only_for_the_block() -> None:
    net = small_net()
    ema = Ema(net, decay=0.5)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    ema.update(net, num_updates=100)
    name = "0.weight"
    assert torch.allclose(ema.weights[name], start[name] + 0.5)
    own = net.get_parameter(name).detach().clone()
    with ema.swapped_into(net):
        assert torch.equal(net.get_parameter(name), ema.weights[name])
    assert torch.equal(net.get_parameter(name), own)


def test_the_first_updates_of_the_average_are_large() -> None:
    net = small_net()
    ema = Ema(net, decay=0.999)
    start = net.get_parameter("0.bias").detach().clone()
    with torch.no_grad():
        net.get_parameter("0.bias").add_(1.0)
    ema.update(net, num_updates=0)
    assert torch.allclose(ema.weights["0.bias"], start + 0.9)


def test_the_deterministic_block_restores_the_settings_of_torch() -> None:
    before: Callable[[], tuple[int, bool]] = lambda: (  # noqa: E731
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    outside = before()
    with deterministic(1):
        assert before() == (1, True)
    assert before() == outside
