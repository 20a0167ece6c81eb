"""What a study finds, the statistics that decide what may be said of it, docs/claims.json and its page."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from runs import Runs
from telecine import provenance
from telecine.errors import InputError

Size = Literal["short", "full"]
Profile = Literal["laptop", "gpu"]
Verdict = Literal["yes", "no", "inconclusive"]

MIN_SEEDS = 5
"""Fewer say nothing: whatever their interval, the verdict is "inconclusive"."""
TUNING_SEEDS = (1000, 1001)
"""Hyper-parameters are chosen on these, which no one may report on."""
SHAPING_SEEDS = (*range(100, 105), *range(200, 203))
"""Nor on these, on which worlds and models were shaped by hand."""
# The 0.975 quantile of Student's t with 1, 2, 3, … degrees of freedom, and the normal's beyond.
_T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
)
PREFACE = """# Which claims of the research hold at toy scale

`make claims` writes this page from `claims.json`. An effect is the mean over seeds of a paired difference, above zero
where the claim says so; `low` and `high` are its 95 % t interval over seeds. A claim is reproduced ("yes") if the whole
interval lies above zero and what it presupposes holds, contradicted ("no") if it lies below, else "inconclusive"; so
it is with fewer than five seeds. Hyper-parameters were chosen on seeds that are not reported, once for all seeds: an
interval says nothing of that choice, and each row has its own 95 %. Toy scale means that of the budget: what holds here
may not hold for large models, nor the reverse.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One call of a study.

    Attributes:
        size: ``short`` for the suite: seconds, and of no meaning.
        profile: ``gpu`` is the same study, larger.
        seeds: to be reported on. A study draws everything from them: clips, order, noise and initial weights.
        runs: carries out tasks.
        pictures: a folder for what a person should see beside the effects, not made yet.
    """

    size: Size
    profile: Profile
    seeds: tuple[int, ...]
    runs: Runs
    pictures: Path

    @property
    def device(self) -> str:
        """Torch's name of where the models are."""
        return "cuda" if self.profile == "gpu" else "cpu"

    @property
    def tuning_seeds(self) -> tuple[int, ...]:
        """What hyper-parameters are chosen on."""
        return TUNING_SEEDS if self.size == "full" else TUNING_SEEDS[:1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a study found.

    Attributes:
        claim: one sentence that may turn out true or false.
        unit: what ``effects`` are, in words.
        effects: the paired effect of each seed, above zero where the claim holds.
        presupposes: what has to be true for the effect to mean what the claim says, and whether it is.
        budget: what each arm was given, in words.
        details: figures behind the row, shown below the table; a dictionary of dictionaries becomes a table.
    """

    claim: str
    unit: str
    effects: Mapping[int, float]
    budget: str
    presupposes: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval; None where one value leaves them open."""

    mean: float
    low: float | None
    high: float | None


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of independent values.

    Not the percentile bootstrap, which is a fifth too narrow with five values.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"t_interval: values must be one or more finite numbers, got {list(values)}")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    quantile = _T_975[len(values) - 2] if len(values) - 2 < len(_T_975) else 1.96 + 2.5 / (len(values) - 1)
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def difference(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], figure: str) -> list[Any]:
    """How much higher a figure of ours is, seed by seed: the mean and the ends of its interval."""
    found = t_interval([our[figure] - their[figure] for our, their in zip(ours, theirs, strict=True)])
    return [found.mean, found.low, found.high]


def verdict(interval: Interval, num_seeds: int, presupposes: Mapping[str, bool]) -> Verdict:
    """What may be said; see :data:`PREFACE`."""
    if interval.low is None or interval.high is None or num_seeds < MIN_SEEDS:
        return "inconclusive"
    if interval.high < 0:
        return "no"
    return "yes" if interval.low > 0 and all(presupposes.values()) else "inconclusive"


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds from a command line; raises :class:`InputError` for what are none."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and word.isascii() for word in words) or len(set(map(int, words))) < len(words):
        raise InputError(f"seeds must be different whole numbers from 0 with commas between, got {text!r}")
    seeds = tuple(map(int, words))
    if max(seeds) >= min(TUNING_SEEDS):
        raise InputError(f"seeds must lie below {min(TUNING_SEEDS)}, which tuning uses, got {max(seeds)}")
    if used := sorted(set(seeds) & set(SHAPING_SEEDS)):
        raise InputError(f"seeds must be none on which the studies were shaped, {list(SHAPING_SEEDS)}, got {used}")
    return seeds


def check_device(profile: Profile) -> None:
    """Raise :class:`InputError` where the profile needs a device and there is none."""
    if profile == "gpu" and not torch.cuda.is_available():
        raise InputError("PROFILE=gpu needs a CUDA device and a torch built for it; leave PROFILE out to use the CPU")


def row(name: str, found: Finding, trial: Trial, seconds: float) -> dict[str, Any]:
    """The row of the record; a short one says that it was short."""
    if set(found.effects) != set(trial.seeds):
        raise ValueError(f"row: {name} must have an effect for each seed of {trial.seeds}, got {set(found.effects)}")
    interval = t_interval(list(found.effects.values()))
    machine = provenance.hardware()
    devices = "" if trial.profile == "laptop" else f", {machine['gpu']}"
    return {
        "id": name,
        "claim": found.claim if trial.size == "full" else f"{found.claim} (short)",
        "effect": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "unit": found.unit,
        "seeds": list(found.effects),
        "effects": list(found.effects.values()),
        "presupposes": dict(found.presupposes),
        "reproduced": verdict(interval, len(found.effects), found.presupposes),
        "budget": found.budget,
        "profile": trial.profile,
        "seconds": round(seconds),
        "details": dict(found.details),
        "commit": provenance.git_commit() or "no-git",
        "hardware": f"{machine['cpu']}, {machine['cpu_count']} cores, {machine['memory_gib']} GiB{devices}",
    }


def merge(path: Path, fresh: Iterable[dict[str, Any]]) -> None:
    """Replace these rows in the record, keep the others, and write the page beside it anew."""
    standing = json.loads(path.read_text()) if path.exists() else []
    merged = {each["id"]: each for each in standing} | {each["id"]: each for each in fresh}
    ordered = [merged[name] for name in sorted(merged)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"{PREFACE}\n{markdown(ordered, path.parent)}\n")


def markdown(found: Iterable[dict[str, Any]], folder: Path | None = None) -> str:
    """Rows as a person reads them: one table, then what is behind each.

    Args:
        folder: where the page will lie; pictures under its ``claims/`` are shown.
    """
    listed = list(found)
    names = ("id", "effect", "low", "high", "reproduced", "seeds", "seconds")
    lines = [names, tuple("---" for _ in names), *(tuple(_cell(each[name]) for name in names) for each in listed)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *(_section(each, folder) for each in listed)])


def _section(found: dict[str, Any], folder: Path | None) -> str:
    head = [f"## {found['id']}", f"{found['claim']}", f"Effect: {found['unit']}.", f"Budget: {found['budget']}."]
    details = dict(found["details"])
    tables = {name: details.pop(name) for name in list(details) if isinstance(details[name], dict)}
    facts = [f"* presupposed: {what}: {_cell(holds)}" for what, holds in found["presupposes"].items()]
    facts += [f"* effect of each seed: {_cell(found['effects'])}"]
    facts += [f"* {name.replace('_', ' ')}: {_cell(value)}" for name, value in details.items()]
    facts += [f"* profile {found['profile']}, commit {found['commit']}", f"* {found['hardware']}"]
    shown = [f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in _pictures(found["id"], folder)]
    return "\n\n".join([*head, "\n".join(facts), *(_table(name, table) for name, table in tables.items()), *shown])


def _pictures(name: str, folder: Path | None) -> list[str]:
    """A claim's pictures, relative to the folder of the page."""
    if folder is None:
        return []
    within = folder / "claims"
    found = (within / f"{name}.png", *sorted((within / name).glob("*.png")))
    return [path.relative_to(folder).as_posix() for path in found if path.exists()]


def _table(name: str, cells: dict[str, dict[str, Any]]) -> str:
    """``{row: {column: value}}`` as a table; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    lines = [[name.replace("_", " "), *columns], ["---", *("---:" for _ in columns)]]
    lines += [[str(label), *(_cell(line.get(column, "")) for column in columns)] for label, line in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
