"""The harness of the claims: its statistics on known answers, each row's form, what reaches MLflow."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from telecine import settings
from telecine.errors import InputError

REPOSITORY = Path(__file__).parents[2]
CLAIMS = REPOSITORY / "infra" / "claims"
FILMED = ("fulldit_composes", "gamefactory_generalises")
ROWS = ("diffmoe_vs_dense", "diffmoe_vs_dense_3x", "vtss_beats_thresholds", *FILMED)
FIELDS = {"id", "claim", "effect", "low", "high", "seeds", "reproduced", "budget", "commit", "hardware"}
FIELDS |= {"unit", "effects", "presupposes", "profile", "seconds", "details"}


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims' modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(CLAIMS))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment of its own."""
    for name in ("TELECINE_STORE", "TELECINE_TRACKING_URI", "TELECINE_RUNNER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TELECINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def tracker(home: Path) -> MlflowClient:
    return MlflowClient(settings.from_environment({"TELECINE_HOME": str(home)}).tracking_uri)


def logged(home: Path) -> list[Any]:
    client = tracker(home)
    experiment = client.get_experiment_by_name("claims")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    """A task whose figure is a square; it leaves a mark each time that it is carried out."""

    arm: str
    seed: int
    folder: str

    def __call__(self) -> Any:
        import runs

        (Path(self.folder) / f"{self.arm}-{self.seed}-{len(os.listdir(self.folder))}").touch()
        if self.seed < 0:
            raise ValueError("no square below zero")
        return runs.Outcome(figures={"square": float(self.seed**2)}, curves={"line": [(1, 0.5), (2, 0.25)]})


# Statistics


def test_the_interval_is_students() -> None:
    import findings

    found = findings.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3.0 - 1.96324, 3.0 + 1.96324), abs=1e-4)
    assert findings.t_interval([2.5]) == findings.Interval(2.5, None, None)
    for wrong in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            findings.t_interval(wrong)


@pytest.mark.parametrize("num_values", [2, 5, 21, 22, 40])
def test_the_interval_covers_the_truth_as_often_as_it_says(num_values: int) -> None:
    import findings

    draws = np.random.default_rng(num_values).normal(1.0, 2.0, size=(4000, num_values))
    covered = [found.low < 1.0 < found.high for found in map(findings.t_interval, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_a_difference_is_paired_by_seed() -> None:
    import findings

    ours, theirs = ([{"loss": value} for value in values] for values in ((3.0, 13.0, 23.0), (2.0, 11.0, 20.0)))
    mean, low, high = findings.difference(ours, theirs, "loss")
    assert (mean, low, high) == pytest.approx((2.0, 2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_a_verdict_needs_an_interval_enough_seeds_and_what_it_presupposes() -> None:
    import findings

    above, below, across = (findings.Interval(0.0, low, high) for low, high in ((0.1, 1.0), (-1.0, -0.1), (-0.1, 1.0)))
    assert findings.verdict(above, 5, {}) == "yes"
    assert findings.verdict(above, 5, {"a": True, "b": False}) == "inconclusive"
    assert findings.verdict(above, 4, {}) == "inconclusive"
    assert findings.verdict(below, 5, {"a": False}) == "no"
    assert findings.verdict(across, 5, {}) == "inconclusive"
    assert findings.verdict(findings.Interval(1.0, None, None), 5, {}) == "inconclusive"


def test_seeds_are_different_and_never_those_of_the_tuning() -> None:
    import findings

    assert findings.seeds_of("10, 11,12") == (10, 11, 12)
    for wrong in ("", "1,1", "01,1", "a", "-1", "1,,2", "1.5", "²"):
        with pytest.raises(InputError, match="different whole numbers"):
            findings.seeds_of(wrong)
    with pytest.raises(InputError, match="below 1000"):
        findings.seeds_of("5,1000")
    with pytest.raises(InputError, match=r"got \[104, 200\]"):
        findings.seeds_of("104,5,200")


# Runs


def test_equal_tasks_are_carried_out_once_and_logged_below_each_claim(home: Path, tmp_path: Path) -> None:
    import runs

    marks = tmp_path / "marks"
    marks.mkdir()
    tasks = [Square(arm="a", seed=seed, folder=str(marks)) for seed in (3, 2, 3)]
    journal = runs.Journal.connected(settings.from_environment())
    with runs.Runs(0, journal) as run:
        for name in ("first", "second"):
            with run.claim(name, {"size": "short"}):
                for _ in range(2):
                    assert [outcome.figures["square"] for outcome in run(tasks)] == [9.0, 4.0, 9.0]
    assert len(list(marks.iterdir())) == 2
    found = {each.info.run_id: each for each in logged(home)}
    parents = {each.data.tags["mlflow.runName"]: key for key, each in found.items() if each.data.params.get("size")}
    for parent in parents.values():
        below = [each for each in found.values() if each.data.tags.get("mlflow.parentRunId") == parent]
        assert sorted(each.data.params["seed"] for each in below) == ["2", "3"]
        curve = tracker(home).get_metric_history(below[0].info.run_id, "line")
        assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]
    assert {each.info.status for each in found.values()} == {"FINISHED"}


def test_a_claim_whose_task_fails_is_a_failed_run(home: Path, tmp_path: Path) -> None:
    import runs

    with (
        pytest.raises(ValueError, match="no square"),
        runs.Runs(0, runs.Journal.connected(settings.from_environment())) as run,
        run.claim("first", {}),
    ):
        run([Square(arm="a", seed=-1, folder=str(tmp_path))])
    assert [each.info.status for each in logged(home)] == ["FAILED"]


# Tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parabola:
    """A task whose figure is lowest at a rate of 0.2 and, on seed 99, no number at 0.1."""

    arm: str
    seed: int
    rate: float

    def __call__(self) -> Any:
        import runs

        off = math.nan if (self.seed, self.rate) == (99, 0.1) else (self.rate - 0.2) ** 2
        return runs.Outcome(figures={"loss": off + self.seed})


def test_rates_are_chosen_on_tuning_seeds_side_by_side_and_reported_on_others() -> None:
    import tuning

    calls: list[list[Any]] = []

    def at_once(tasks: Any) -> list[Any]:
        calls.append(list(tasks))
        return [task() for task in tasks]

    def make(arm: str, seed: int, rate: float) -> Parabola:
        return Parabola(arm=arm, seed=seed, rate=rate)

    found = tuning.tuned(at_once, make, {"a": (0.1, 0.2, 0.3), "b": (0.3, 0.4, 0.5)}, (1, 3), "loss")
    assert {arm: (each.best, each.is_at_edge) for arm, each in found.items()} == {"a": (0.2, False), "b": (0.3, True)}
    assert list(found["a"].means.values()) == pytest.approx([2.01, 2.0, 2.01])
    assert len(calls) == 1 and len(calls[0]) == 12, "equally many runs for each arm, in one go"
    outcomes = tuning.reported(at_once, make, {arm: each.best for arm, each in found.items()}, (7, 5))
    assert [each.figures["loss"] for each in outcomes["b"]] == pytest.approx([7.01, 5.01])
    assert {task.seed for task in calls[1]} == {5, 7}
    assert tuning.table(found)["b"]["taken is the first or last"] is True
    with pytest.raises(ValueError, match="equally many"):
        tuning.tuned(at_once, make, {"a": (0.1,), "b": (0.1, 0.2)}, (1,), "loss")


def test_a_rate_that_came_to_no_number_is_never_chosen() -> None:
    import tuning

    assert tuning.Tuned("loss", {0.1: math.nan, 0.2: 3.0, 0.3: math.inf}).best == 0.2
    with pytest.raises(ValueError, match="must be a number"):
        tuning.Tuned("loss", {0.1: math.nan})


# Training


def test_a_fit_learns_and_is_a_function_of_its_seed() -> None:
    import fit

    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])

    def fitted() -> Any:
        model = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.zeros_(model.weight)

        def loss(net: torch.nn.Module, step: int) -> torch.Tensor:
            index = fit.batch_of(64, 16, 7, step)
            return (net(x[index]) - y[index]).square().mean()

        return fit.fit(model, loss, fit.Recipe(num_steps=300, learning_rate=0.05))

    first, second = fitted(), fitted()
    assert first.ema.weights["weight"][0].tolist() == pytest.approx([1.0, -2.0, 0.5], abs=1e-2)
    assert torch.equal(first.ema.weights["weight"], second.ema.weights["weight"])
    assert first.curve[0][1] > 10 * first.curve[-1][1] and first.curve[-1][0] == 300
    with pytest.raises(ValueError, match="num_steps"):
        fit.fit(torch.nn.Linear(1, 1), lambda *_: torch.zeros(()), fit.Recipe(num_steps=0, learning_rate=1.0))


def test_an_epoch_meets_every_item_once_in_an_order_of_its_own() -> None:
    import fit

    epochs = [torch.cat([fit.batch_of(12, 4, 5, 3 * epoch + place) for place in range(3)]) for epoch in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(12)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert fit.batch_of(12, 4, 6, 0).tolist() != fit.batch_of(12, 4, 5, 0).tolist()
    with pytest.raises(ValueError, match="at least the batch"):
        fit.batch_of(3, 4, 0, 0)


def test_noise_of_training_and_of_judging_never_meet() -> None:
    import fit

    shape = torch.Size((2, 3))
    drawn = [fit.noise_of(shape, 0, 1), fit.noise_of(shape, 0, 2), fit.noise_of(shape, 1, 1)]
    drawn += [fit.eval_noise_of(shape, 0, 1), fit.eval_noise_of(shape, 1, 1)]
    assert len({noise.flatten()[0].item() for _, noise in drawn}) == len(drawn)
    assert torch.equal(fit.noise_of(shape, 0, 1)[1], drawn[0][1])


# Rows


@pytest.mark.parametrize("name", ROWS)
def test_a_short_study_gives_a_row_that_says_everything(home: Path, tmp_path: Path, name: str) -> None:
    import claims

    record = tmp_path / "docs" / "claims.json"
    record.parent.mkdir()
    other = {**dict.fromkeys(FIELDS, "by hand"), "id": "other", "details": {}, "presupposes": {}, "effects": []}
    record.write_text(json.dumps([other]))
    arguments = ["--row", name, "--size", "short", "--seeds", "7", "--workers", "0", "--record", str(record)]
    assert claims.main(arguments) == 0
    found = {row["id"]: row for row in json.loads(record.read_text())}
    assert found["other"] == other, "rows of other studies are kept"
    row = found[name]
    assert set(row) == FIELDS
    assert row["claim"].endswith("(short)") and row["seeds"] == [7] and row["effects"] == [row["effect"]]
    assert math.isfinite(row["effect"])
    assert (row["low"], row["high"], row["reproduced"]) == (None, None, "inconclusive")
    pictures = [f"{name}.png", *([f"{name}/films.png"] if name in FILMED else [])]
    page = record.with_suffix(".md").read_text()
    assert f"## {name}" in page and "## other" in page
    assert re.findall(r"\(claims/(.*?)\)", page) == pictures
    assert all(0 < (record.parent / "claims" / each).stat().st_size < 150_000 for each in pictures)
    parent = next(each for each in logged(home) if each.data.tags["mlflow.runName"] == name)
    assert parent.data.metrics["effect"] == pytest.approx(row["effect"])
    logged_files = {each.path for each in tracker(home).list_artifacts(parent.info.run_id)}
    assert logged_files == {"row.json", *(Path(each).name for each in pictures)}


def test_every_study_has_its_short_test() -> None:
    import claims

    assert sorted(claims.STUDIES) == sorted(ROWS)


def test_the_command_runs_its_tasks_in_processes(home: Path, tmp_path: Path) -> None:
    record = tmp_path / "claims.json"
    command = [sys.executable, str(CLAIMS / "claims.py"), "--size", "short", "--record", str(record)]
    paths = os.pathsep.join(str(REPOSITORY / name) for name in ("platform", "components", "models"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command += ["--row", ROWS[0], "--workers", "1", "--seeds", "1,2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{ROWS[0]} 4/4 elapsed=" in done.stderr and f"| {ROWS[0]} |" in done.stdout
    (row,) = json.loads(record.read_text())
    assert row["seeds"] == [1, 2] and row["low"] <= row["effect"] <= row["high"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--seeds", "1,1"], {}, "got '1,1'"),
        (["--seeds", "5,1000"], {}, "below 1000"),
        ([], {"TELECINE_TRACKING_URI": "ftp://there"}, "TELECINE_TRACKING_URI"),
        pytest.param(
            ["--profile", "gpu"],
            {},
            "PROFILE=gpu needs a CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device"),
        ),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_before_anything_runs(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    import claims

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert claims.main([*arguments, "--row", ROWS[0]]) == 78
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and message in shown.err and not shown.out
    assert not home.exists()


def test_a_row_must_have_an_effect_for_every_seed(tmp_path: Path) -> None:
    import findings

    trial = findings.Trial(size="short", profile="laptop", seeds=(1, 2), runs=None, pictures=tmp_path)
    found = findings.Finding(claim="c", unit="u", effects={1: 0.5}, budget="b")
    with pytest.raises(ValueError, match="an effect for each seed"):
        findings.row("name", found, trial, 1.0)


def test_a_contact_sheet_has_a_row_for_each_label(tmp_path: Path) -> None:
    from PIL import Image

    import pictures

    films = {name: [np.full((2, 16, 16, 3), level, np.uint8)] for name, level in (("dark", 0), ("light", 128))}
    pictures.sheet(films, tmp_path / "new" / "films.png")
    shown = np.asarray(Image.open(tmp_path / "new" / "films.png").convert("L"))
    assert (shown[: len(shown) // 2] == 0).sum() > 900 and (shown[len(shown) // 2 :] == 128).sum() > 900
