"""The benches of the trainer: each measures what it says, and a gate that is shut claims no ratio."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "infra" / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize("name", ["checkpoint_stall_vs_torch_save", "logging_vs_mlflow", "step_vs_bare_loop"])
def test_a_short_run_gives_a_whole_row(tmp_path: Path, name: str) -> None:
    record = tmp_path / "bench.json"
    command = [sys.executable, str(BENCH / "bench.py"), "--row", name, "--size", "short", "--runs", "1"]
    done = subprocess.run([*command, "--record", str(record)], capture_output=True, text=True, timeout=300)
    (row,) = json.loads(record.read_text())
    assert done.returncode == (0 if row["holds"] else 1), done.stderr
    lost_in_noise = "differs: ours added no time"  # a busy machine; of a few short steps no figure means anything
    assert row["quality_gate"] == "equal" or row["quality_gate"].startswith(lost_in_noise)
    assert row["runs"] >= 2 and row["target"] in record.with_suffix(".md").read_text()


def test_a_checkpoint_beside_the_steps_has_the_bits_of_the_call(tmp_path: Path) -> None:
    import checkpoint_stall

    with checkpoint_stall.one_thread():
        training = checkpoint_stall.Training("short")
        training.step()
        ours = checkpoint_stall.Ours(tmp_path / "ours")
        assert checkpoint_stall.reloaded(training, ours) == "equal"
        sides = [ours, checkpoint_stall.TorchSave(tmp_path / "peer", has_checksums=True)]
        legs = [checkpoint_stall.leg(training, side) for side in sides]
    for leg in legs:
        assert 0 < leg.call_s <= leg.durable_s and leg.step_s > 0
    assert legs[1].call_s == legs[1].durable_s, "it returns when the bytes are on the disk"
    assert (tmp_path / "peer").stat().st_size and len(list((tmp_path / "peer").iterdir())) == 1


def test_another_bit_after_the_reload_is_seen(tmp_path: Path) -> None:
    import checkpoint_stall

    class Flipping(checkpoint_stall.Ours):
        """Saves a state in which one number is another one."""

        def save(self, number: int, state: checkpoint_stall.State) -> Callable[[], bool]:
            weights = dict(state["weights.safetensors"])
            name = next(iter(weights))
            weights[name] = weights[name] + 1
            return super().save(number, state | {"weights.safetensors": weights})

    with checkpoint_stall.one_thread():
        training = checkpoint_stall.Training("short")
        training.step()
        gate = checkpoint_stall.reloaded(training, Flipping(tmp_path))
    assert gate.startswith("differs: weights.safetensors ")
    leg = checkpoint_stall.Leg(1.0, 1.0, 1.0, 1.0)
    legs = {name: [leg] for name in ("ours", "torch.save", "torch.save, checksums")}
    row = checkpoint_stall.compared(legs, {}, gate, 10, 0.1)
    assert (row.ratio, row.low, row.high, row.holds) == (None, None, None, False)


@pytest.mark.parametrize("better", ["torch.save", "torch.save, checksums"])
def test_the_ratio_of_a_checkpoint_is_that_of_the_median_legs_to_the_better_torch_save(better: str) -> None:
    import checkpoint_stall

    cheap, dear, odd = (checkpoint_stall.Leg(extra_s, 0.1, 0.2, 0.3) for extra_s in (0.1, 0.6, 50.0))
    legs = {
        "ours": [cheap, cheap, odd],
        "torch.save": [odd] * 3,
        "torch.save, checksums": [odd] * 3,
        better: [dear] * 3,
    }
    row = checkpoint_stall.compared(legs, {"thread": [odd]}, "equal", 2**20, 0.05)
    assert row.ratio == pytest.approx(6.0) and row.holds
    assert row.details["state_mib"] == 1.0
    lucky = checkpoint_stall.Leg(-0.1, 0.05, 0.2, 0.3)
    row = checkpoint_stall.compared(legs | {"ours": [lucky] * 3}, {}, "equal", 2**20, 0.05)
    assert row.ratio == pytest.approx(12.0), "no checkpoint costs less than its call"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A point as MLflow gives it."""

    step: int
    value: float


@dataclasses.dataclass
class Curves:
    """A tracker in memory."""

    points: dict[str, list[Stored]]

    def get_metric_history(self, run_id: str, key: str) -> list[Stored]:
        return self.points.get(key, [])


def _curves(values: "list[Mapping[str, float]]") -> Curves:
    return Curves({name: [Stored(step, each[name]) for step, each in enumerate(values)] for name in values[0]})


def test_a_missing_a_doubled_and_another_point_shut_the_gate_of_logging() -> None:
    import metric_logging

    whole = _curves([metric_logging.values(step) for step in range(3)])
    assert metric_logging.missing(whole, "run", 3) == ""
    for change in (
        lambda points: points.pop(),
        lambda points: points.append(points[-1]),
        lambda points: points.__setitem__(0, Stored(0, -1.0)),
    ):
        broken = _curves([metric_logging.values(step) for step in range(3)])
        change(broken.points["train/metric_07"])
        problem = metric_logging.missing(broken, "run", 3)
        assert problem.startswith("train/metric_07 has")
    good, bad = (metric_logging.Leg(added_s, added_s, 1e-6, "") for added_s in (0.001, 0.1))
    legs = {name: [good if name == "ours" else bad] for name in metric_logging.WAYS}
    row = metric_logging.compared(legs)
    assert row.ratio == pytest.approx(100.0) and row.holds and row.quality_gate == "equal"
    free = dataclasses.replace(good, added_s=-0.001)
    row = metric_logging.compared(legs | {"ours": [free]})
    assert row.ratio is None and not row.holds and row.quality_gate.startswith("differs: ours added no time")
    legs["log_batch"] = [dataclasses.replace(bad, problem=problem)]
    row = metric_logging.compared(legs)
    assert row.ratio is None and not row.holds and row.quality_gate == f"differs: log_batch: {problem}"


def test_other_weights_or_a_slower_step_are_no_equal_of_the_plain_loop() -> None:
    import step

    fast, slow = (step.Leg([seconds] * 4, {"w": torch.ones(2)}) for seconds in (0.100, 0.110))
    row = step.compared([(fast, fast)])
    assert row.ratio == 1.0 and row.holds
    assert not step.compared([(slow, fast)]).holds
    other = dataclasses.replace(fast, weights={"w": torch.tensor([1.0, 1.25])})
    row = step.compared([(other, fast)])
    assert row.quality_gate.startswith("differs: w by 2.5e-01") and row.ratio is None and not row.holds


def test_the_plain_loop_trains_the_same_each_time() -> None:
    import step
    from telecine_components.training.determinism import deterministic

    setting = step.Setting("short")
    with deterministic(1):
        legs = [step.bare(setting, number=number) for number in range(2)]
    assert all(torch.equal(legs[0].weights[name], legs[1].weights[name]) for name in legs[0].weights)
    start = setting.model().state_dict()
    assert any(not torch.equal(tensor, legs[0].weights[name]) for name, tensor in start.items())
