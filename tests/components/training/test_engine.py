"""The loop: what a step does, where a run goes on, when it stops, what it does with a bad step."""

import dataclasses
import os
from collections.abc import Callable, Sequence, Set
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
from telecine_components.training.config import TrainingConfig
from telecine_components.training.determinism import deterministic
from telecine_components.training.ema import Ema
from telecine_components.training.engine import Engine
from telecine_components.training.loader import Batch, StepBatches
from telecine_components.training.loop import Hooks, StepResult, train
from telecine_components.training.losses import Objective
from telecine_components.training.randomness import generator

SIZE = 4
CONFIG = TrainingConfig(
    num_steps=12, batch_size=SIZE, learning_rate=0.05, warmup_steps=3, weight_decay=0.1, checkpoint_every_steps=5
)


def small_net(width: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.GELU(), torch.nn.Linear(width, 6))


def batch(positions: Sequence[int]) -> Batch:
    rows = [torch.randn(6, generator=generator(1, position)) for position in positions]
    return Batch(torch.stack(rows), [""] * len(rows), positions=tuple(positions))


def steps(number: int, micro: int = SIZE) -> StepBatches:
    """A step's samples, in micro-batches of ``micro``."""
    positions = range(number * SIZE, (number + 1) * SIZE)
    return StepBatches([batch(positions[at : at + micro]) for at in range(0, SIZE, micro)], SIZE, 1.0)


def loss(model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
    [chosen] = batches
    noise = torch.stack([torch.randn(6, generator=generator(2, position)) for position in chosen.positions])
    predicted: torch.Tensor = model(chosen.x0 + 0.1 * noise)
    return Objective((predicted - 3 * chosen.x0).square().mean(1))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return checkpoints_in(tmp_path)


def checkpoints_in(folder: Path, attempt: str = "one", rivals: Set[str] = frozenset()) -> Checkpoints:
    store, digests = Store(f"file://{folder}/store"), Digests(folder)
    return Checkpoints(
        store,
        digests,
        work_prefix="work/test/key",
        attempt=attempt,
        scratch=folder / attempt,
        before_commit=lambda: (),
        rivals=lambda: rivals,
    )


def run_to_end(
    engine: Engine,
    checkpoints: Checkpoints,
    stop_after: int = 10**9,
    data: Callable[[int], StepBatches] = steps,
    objective: Callable[[torch.nn.Module, Sequence[Batch]], Objective] = loss,
) -> tuple[TrainingState, list[StepResult]]:
    seen: list[StepResult] = []
    hooks = Hooks(observe=seen.append, stop_requested=lambda: len(seen) >= stop_after - 1)
    with deterministic(1):
        state = train(engine, steps=data, loss=objective, checkpoints=checkpoints, hooks=hooks)
    return state, seen


def test_steps_are_those_of_a_bare_loop_with_adamw(checkpoints: Checkpoints) -> None:
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, betas=(0.9, 0.95), weight_decay=0.1)
    expected = []
    with deterministic(1):
        for step in range(CONFIG.num_steps):
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (step + 1) / 3)
            value = loss(net, steps(step).batches).per_sample.mean()
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


def test_micro_batches_make_the_step_of_the_whole(tmp_path: Path) -> None:
    whole, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "whole"))
    parts, _ = run_to_end(
        Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "parts"), data=lambda number: steps(number, micro=3)
    )
    ours, theirs = ([value for _, value in state.history["train/loss"]] for state in (parts, whole))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_stopped_run_saves_says_retry_and_goes_on_to_the_same_weights(
    tmp_path: Path, checkpoints: Checkpoints
) -> None:
    whole = Engine(small_net(), CONFIG)
    expected, _ = run_to_end(whole, checkpoints_in(tmp_path / "other"))
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


def test_a_checkpoint_holds_weights_average_optimizer_and_history_in_safetensors_and_json(
    checkpoints: Checkpoints,
) -> None:
    run_to_end(Engine(small_net(), CONFIG), checkpoints)
    found = checkpoints.latest()
    assert found is not None
    files = {path.name for path in found.dir.iterdir()}
    assert files == {f"{name}.safetensors" for name in ("weights", "ema", "optimizer", "history")} | {"state.json"}
    assert set(load_file(found.dir / "weights.safetensors")) == set(small_net().state_dict())
    assert "0.weight.exp_avg_sq" in load_file(found.dir / "optimizer.safetensors")
    assert load_file(found.dir / "history.safetensors")["train/loss.steps"].tolist() == list(range(1, 13))


def test_weights_wait_for_the_copy_of_a_checkpoint_before_they_move(
    tmp_path: Path, slow_to_copy: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    class Slow(Engine):
        """One whose weights take longer to copy than a step takes."""

        def collect(self, state: TrainingState) -> checkpoint.Files:
            files = super().collect(state)
            weights = files[checkpoint.WEIGHTS]
            return files | {checkpoint.WEIGHTS: weights | {"2.bias": slow_to_copy(weights["2.bias"])}}

    found = []
    for kind in (Engine, Slow):
        checkpoints = checkpoints_in(tmp_path / kind.__name__)
        run_to_end(kind(small_net(), CONFIG), checkpoints)
        latest = checkpoints.latest(lambda step: step == 10)
        assert latest is not None
        found.append(load_file(latest.dir / checkpoint.WEIGHTS))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_checkpoint_of_another_architecture_or_format_is_refused(checkpoints: Checkpoints) -> None:
    run_to_end(Engine(small_net(), CONFIG), checkpoints)
    found = checkpoints.latest()
    assert found is not None
    with pytest.raises(InputError, match=r"another architecture: 0\.bias and 2 more differ"):
        Engine(small_net(width=9), CONFIG).load(found.dir)
    (found.dir / "state.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match=f"format must be {checkpoint.FORMAT}"):
        Engine(small_net(), CONFIG).load(found.dir)


def poisoned(at: set[int]) -> Callable[[torch.nn.Module, Sequence[Batch]], Objective]:
    """The loss, no number in the steps of the data that are named."""

    def objective(model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
        found = loss(model, batches)
        return Objective(found.per_sample * float("nan")) if batches[0].positions[0] // SIZE in at else found

    return objective


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_loss_that_is_no_number_goes_back_to_the_checkpoint_and_leaves_the_data_out(
    checkpoints: Checkpoints, tmp_path: Path, stage: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At each stage of ZeRO it then ends where stage 0 does, moments included."""
    expected, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "o"), objective=poisoned({7}))
    config = dataclasses.replace(CONFIG, zero_stage=stage)
    state, seen = run_to_end(Engine(small_net(), config), checkpoints, objective=poisoned({7}))
    assert [result.step for result in seen] == [1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 10, 11, 12]
    assert state.data_step == 15 and [told["data_step"] for told in state.rollbacks] == [8]
    assert "step 7: loss nan" in caplog.text and "event=rolled_back" in caplog.text
    ours, theirs = ([value for _, value in each.history["train/loss"]] for each in (state, expected))
    assert ours == pytest.approx(theirs, rel=1e-5)
    slots, others = (optimizer_at_the_end(of) for of in (checkpoints, checkpoints_in(tmp_path / "o")))
    assert slots.keys() == others.keys()
    for name, slot in others.items():
        torch.testing.assert_close(slots[name], slot, rtol=1e-3, atol=1e-7, msg=name)


def optimizer_at_the_end(checkpoints: Checkpoints) -> dict[str, torch.Tensor]:
    found = checkpoints.latest()
    assert found is not None and found.step == CONFIG.num_steps
    return load_file(found.dir / "optimizer.safetensors")


def test_a_rollback_is_the_same_in_a_run_that_was_stopped_after_it(tmp_path: Path, checkpoints: Checkpoints) -> None:
    expected, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "o"), objective=poisoned({7}))
    with pytest.raises(RetryLater):
        run_to_end(Engine(small_net(), CONFIG), checkpoints, stop_after=8, objective=poisoned({7}))
    state, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints, objective=poisoned({7}))
    assert state == expected


def test_every_rollback_is_told_also_where_two_go_back_to_the_same_checkpoint(checkpoints: Checkpoints) -> None:
    state, seen = run_to_end(Engine(small_net(), CONFIG), checkpoints, objective=poisoned({7, 9}))
    assert [(told["step"], told["to_step"], told["data_step"]) for told in state.rollbacks] == [(7, 5, 8), (6, 5, 10)]
    assert seen[-1].num_rollbacks == 2


@pytest.mark.parametrize("stops", [(6,), (6, 7), (3, 5, 7)])
def test_a_rollback_is_the_same_in_a_run_that_was_stopped_before_it(
    tmp_path: Path, checkpoints: Checkpoints, stops: tuple[int, ...]
) -> None:
    expected, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "o"), objective=poisoned({7}))
    for begun, stop in zip((0, *stops), stops, strict=False):
        with pytest.raises(RetryLater):
            run_to_end(Engine(small_net(), CONFIG), checkpoints, stop_after=stop - begun, objective=poisoned({7}))
    assert checkpoints.steps() == [5, stops[-1]]
    state, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints, objective=poisoned({7}))
    assert state == expected


def test_a_rollback_is_the_same_beside_an_attempt_that_is_ahead(tmp_path: Path) -> None:
    expected, _ = run_to_end(Engine(small_net(), CONFIG), checkpoints_in(tmp_path / "o"), objective=poisoned({7}))
    mine, theirs = (checkpoints_in(tmp_path, name, rivals={"other"}) for name in ("one", "two"))

    def ahead(model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
        if batches[0].positions[0] == 7 * SIZE and max(mine.steps(), default=0) < 10:
            reached: list[int] = []
            hooks = Hooks(
                observe=lambda result: reached.append(result.step), stop_requested=lambda: reached[-1:] == [9]
            )
            with pytest.raises(RetryLater, match="after step 10"):
                train(Engine(small_net(), CONFIG), steps=steps, loss=poisoned({7}), checkpoints=theirs, hooks=hooks)
        return poisoned({7})(model, batches)

    state, _ = run_to_end(Engine(small_net(), CONFIG), mine, objective=ahead)
    assert state == expected


def test_a_bad_step_before_the_first_checkpoint_ends_the_run_before_the_weights_change(
    checkpoints: Checkpoints,
) -> None:
    engine = Engine(small_net(), CONFIG)
    before = [parameter.clone() for parameter in engine.module.parameters()]
    with pytest.raises(FloatingPointError, match="step 0: loss nan.*before the first checkpoint; lower the learning"):
        run_to_end(engine, checkpoints, objective=poisoned({0}))
    assert all(torch.equal(old, new) for old, new in zip(before, engine.module.parameters(), strict=True))


def test_bad_steps_without_end_end_the_run(checkpoints: Checkpoints) -> None:
    with pytest.raises(FloatingPointError, match="more than max_rollbacks 3"):
        run_to_end(Engine(small_net(), CONFIG), checkpoints, objective=poisoned(set(range(7, 99))))


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


def test_a_parameter_that_is_not_trained_is_neither_averaged_nor_saved(checkpoints: Checkpoints) -> None:
    net = small_net()
    net.get_parameter("0.weight").requires_grad_(False)
    frozen = net.get_parameter("0.weight").clone()
    run_to_end(Engine(net, CONFIG), checkpoints)
    found = checkpoints.latest()
    assert found is not None
    for name in ("weights", "ema"):
        assert set(load_file(found.dir / f"{name}.safetensors")) == {"0.bias", "2.weight", "2.bias"}
    assert torch.equal(net.get_parameter("0.weight"), frozen)


def test_a_parameter_that_the_loss_does_not_use_is_saved_and_gone_on_from(checkpoints: Checkpoints) -> None:
    def with_unused() -> torch.nn.Module:
        net = small_net()
        net.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        return net

    with pytest.raises(RetryLater):
        run_to_end(Engine(with_unused(), CONFIG), checkpoints, stop_after=7)
    resumed = Engine(with_unused(), CONFIG)
    run_to_end(resumed, checkpoints)
    assert torch.equal(optimizer_at_the_end(checkpoints)["unused.exp_avg"], torch.zeros(3))
    assert torch.equal(resumed.module.get_parameter("unused"), torch.ones(3))


def test_the_deterministic_block_restores_the_settings_of_torch() -> None:
    before: Callable[[], tuple[int, bool]] = lambda: (  # noqa: E731
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    outside = before()
    with deterministic(1):
        assert before() == (1, True)
    assert before() == outside


def test_the_deterministic_block_asks_cublas_for_equal_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what torch tells to set where it is missing; only a GPU shows that it is heard."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with deterministic(1):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
