"""The bench on one tiny pair of runs: its parts add up, its gate can fail, its row says everything."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine.storage import Store

REPOSITORY = Path(__file__).parents[2]
BENCH = REPOSITORY / "infra" / "bench"
NUMBERS = {"ours", "peer", "ratio", "low", "high", "runs"}
FIELDS = NUMBERS | {"id", "what", "limit", "target", "holds", "quality_gate", "details", "commit", "hardware"}
HOMES = ("demo-0", "script-0")
TASKS = 8


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one call of the bench left behind."""

    kept: Path
    row: dict[str, Any]
    page: str
    code: int


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One short pair, with the homes of both runs."""
    folder = tmp_path_factory.mktemp("bench")
    record = folder / "bench.json"
    other = {**dict.fromkeys(FIELDS, "by hand"), "id": "other", "holds": False, "details": {}}
    record.write_text(json.dumps([other]))
    command = [
        sys.executable,
        str(BENCH / "bench.py"),
        "--row",
        "orchestration_share",
        "--size",
        "short",
        "--runs",
        "1",
    ]
    command += ["--record", str(record), "--keep", str(folder / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    print(done.stdout, done.stderr)
    found = {row["id"]: row for row in json.loads(record.read_text())}
    assert found["other"] == other, "rows of other benches are kept"
    page = record.with_suffix(".md").read_text()
    return Measured(folder / "kept", found["orchestration_share"], page, done.returncode)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


def test_the_row_has_every_field_and_a_missed_target_is_printed_and_fails(measured: Measured) -> None:
    row = measured.row
    assert sorted(row) == sorted(FIELDS)
    assert row["quality_gate"] == "equal"
    assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
    assert row["low"] == row["ratio"] == row["high"]
    assert row["details"]["what_low_and_high_are"] == "min..max of 1"
    assert row["what"].endswith("(short)")
    assert row["holds"] is (row["details"]["share_beside_component_work"] < 0.25)
    assert measured.code == (0 if row["holds"] else 1)
    assert "| orchestration_share |" in measured.page and "| other | by hand |" in measured.page


def test_the_parts_of_both_runs_add_up_to_the_whole(measured: Measured) -> None:
    seconds = measured.row["details"]["seconds"]
    for side in ("demo", "script"):
        column = {part: line[side] for part, line in seconds.items() if side in line}
        whole, unexplained = column.pop("the whole"), column.pop("unexplained")
        assert min(column.values()) >= 0, column
        assert sum(column.values()) + unexplained == pytest.approx(whole)
        assert abs(unexplained) < 0.05 * whole
    work = seconds["inside the components"]["demo"]
    assert measured.row["details"]["share_beside_component_work"] == pytest.approx(1 - work / measured.row["ours"])
    assert work == pytest.approx(_committed_seconds(measured.kept / "demo-0"), abs=0.1), "tasks follow each other"


def test_a_script_gets_the_inputs_of_the_demo_and_nothing_of_its_store(measured: Measured) -> None:
    demo, script = (_pointers(measured.kept / name) for name in ("demo-0", "script-0"))
    assert len(demo) == TASKS and set(demo) == set(script)
    assert {pointer["decision"] for pointer in script.values()} == {"ran"}
    for task, pointer in script.items():
        assert str(measured.kept / "demo-0") not in json.dumps(pointer["inputs"])
        values = {name: value for name, value in pointer["inputs"].items() if not name.endswith("_uri")}
        assert values == {name: demo[task]["inputs"][name] for name in values}


def test_other_weights_shut_the_gate_and_no_ratio_is_claimed(measured: Measured, bench: None) -> None:
    import legs
    import orchestration

    store = Store(f"file://{measured.kept}/script-0/store")
    key = next(iter(store.folders("work/pretrain.train")))
    path = f"work/pretrain.train/{key}/commit.json"
    standing = store.read(path)
    changed = json.loads(standing)
    changed["outputs"]["model_uri"]["digest"] = "0" * 64
    runs = {name: next(iter(Store(f"file://{measured.kept}/{name}/store").folders("runs"))) for name in HOMES}
    found = [
        legs.Leg(home=measured.kept / name, run=run, seconds=50.0, parts={}, load=0.0) for name, run in runs.items()
    ]
    pair = orchestration.Pair(*found)
    assert orchestration.quality_gate([pair]) == "equal"
    try:
        store.write(path, json.dumps(changed).encode())
        compared = orchestration.compared([pair])
    finally:
        store.write(path, standing)
    assert compared.quality_gate == "differs: pretrain.train model_uri of pair 0"
    assert (compared.ratio, compared.low, compared.high, compared.holds) == (None, None, None, False)


def test_work_side_by_side_counts_once_and_a_cut_cannot_go_back(bench: None) -> None:
    import timeline

    assert timeline.union_s([(4.0, 6.0), (0.0, 3.0), (1.0, 2.0), (2.5, 5.0)]) == 6.0
    cuts = [timeline.Cut(1.0, "a"), timeline.Cut(4.0, "b"), timeline.Cut(6.0, "a")]
    assert timeline.parts(0.0, cuts) == {"a": 3.0, "b": 3.0}
    with pytest.raises(timeline.NotUnderstood, match="'b' ends 0.500 s before 'a'"):
        timeline.parts(0.0, [timeline.Cut(2.0, "a"), timeline.Cut(1.5, "b")])


def test_a_handful_of_pairs_has_a_range_and_only_more_have_an_interval(bench: None) -> None:
    import intervals

    def ratio(pairs: Any) -> float:
        return float(sum(ours for ours, _ in pairs) / sum(peer for _, peer in pairs))

    pairs = [(110.0, 100.0), (130.0, 100.0), (120.0, 100.0), (115.0, 100.0)]
    assert intervals.spread(ratio, pairs) == intervals.Spread(1.1, 1.3, "min..max of 4")
    assert intervals.spread(ratio, pairs[:1]) == intervals.Spread(1.1, 1.1, "min..max of 1")
    many = intervals.spread(ratio, [*pairs, (125.0, 100.0)])
    assert many.kind == "95 % bootstrap interval" and 1.1 < many.low < 1.2 < many.high < 1.3


def _pointers(home: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (home / "store" / "runs").glob("*/tasks/*.json")]
    return {pointer["task"]: pointer for pointer in found}


def _committed_seconds(home: Path) -> float:
    return sum(json.loads(path.read_text())["seconds"] for path in (home / "store" / "work").glob("*/*/commit.json"))


# The mixture-of-experts layer


@pytest.mark.parametrize("name", ["moe_layer_vs_loop", "moe_layer_vs_dense"])
def test_a_layer_of_experts_is_timed_only_after_it_gave_the_peers_numbers(
    bench: None, tmp_path: Path, name: str
) -> None:
    import moe
    import rows

    done: list[tuple[int, int]] = []
    found = getattr(moe, name)(rows.Trial("short", 1, tmp_path, lambda *step: done.append(step)))
    assert found.quality_gate == "equal" and done[-1] == (1, 1)
    assert found.runs == moe.PAIRS_PER_RUN and found.ratio == pytest.approx(found.ours / found.peer)
    assert found.low <= found.ratio <= found.high
    (line,) = found.details["settings"].values()
    assert line["peak MiB, ours"] > 0 and line["peak MiB, peer"] > 0


@pytest.mark.parametrize("kind", ["loop", "dense"])
def test_a_layer_with_one_other_weight_is_another_layer(bench: None, kind: str) -> None:
    import torch

    import moe

    setting = moe.SHORT[0]
    x, grad = setting.batch()
    _, peer = moe.layers(kind, setting)
    results = [{"y": moe.step(peer, x, grad)[0]}]
    with torch.no_grad():
        next(peer.parameters()).mul_(1.01)
    results.append({"y": moe.step(peer, x, grad)[0]})
    assert moe.differing(*results) == ["y"] and moe.differing(results[0], results[0]) == []
    assert moe.differing({"y": torch.tensor([torch.nan])}, {"y": torch.ones(1)}) == ["y"]


def test_an_interleaved_step_starts_from_no_gradient_and_both_begin_in_turn(bench: None) -> None:
    import moe

    setting = moe.SHORT[0]
    pair, batch = moe.layers("loop", setting), setting.batch()
    assert len(moe.interleaved(pair, batch, 3)) == 3
    once = pair[1].router.weight.grad.clone()
    moe.step(pair[1], *batch)
    assert (pair[1].router.weight.grad == once).all()
