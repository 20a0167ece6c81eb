"""orchestration_share: how much of the demo's wall time is not component work, and where that goes."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import legs
from intervals import spread
from legs import Leg
from rows import Comparison, Trial
from timeline import COMPONENT

TARGET = 0.25
SHORT: dict[str, Any] = {
    "render_num_films": 3,
    "render_num_frames": 48,
    "train_num_steps": 6,
    "train_batch_size": 4,
    "train_depth": 1,
    "train_checkpoint_every_steps": 3,
    "train_eval_every_steps": 3,
    "sample_num_steps": 2,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}
GATED = {"curate.encode": "dataset_uri", "pretrain.train": "model_uri", "evaluate.sample": "samples_uri"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A demo and the script that followed it."""

    demo: Leg
    script: Leg


def orchestration_share(trial: Trial) -> Comparison:
    """Run demo and script in turn, each in an empty home of its own, and compare."""
    pairs = []
    conf = SHORT if trial.size == "short" else {}
    trial.progress(0, 2 * trial.num_runs)
    for number in range(trial.num_runs):
        demo = legs.demo(trial.folder / f"demo-{number}", conf)
        trial.progress(2 * number + 1, 2 * trial.num_runs)
        pairs.append(Pair(demo, legs.script(trial.folder / f"script-{number}", demo)))
        trial.progress(2 * number + 2, 2 * trial.num_runs)
    return compared(pairs)


def quality_gate(pairs: Sequence[Pair]) -> str:
    """``equal`` if every pair made the same dataset, weights and samples, else what differs."""
    differing = [
        f"{task} {output} of pair {number}"
        for number, pair in enumerate(pairs)
        for task, output in GATED.items()
        if len({leg.records()[task]["outputs"][output]["digest"] for leg in (pair.demo, pair.script)}) > 1
    ]
    return f"differs: {', '.join(differing)}" if differing else "equal"


def share(pairs: Sequence[Pair]) -> float:
    """Part of the demos' wall time that no component was at work, databases included."""
    return 1 - sum(pair.demo.component_s for pair in pairs) / sum(pair.demo.seconds for pair in pairs)


def _ratio(pairs: Sequence[Pair]) -> float:
    return sum(pair.demo.seconds for pair in pairs) / sum(pair.script.seconds for pair in pairs)


def compared(pairs: Sequence[Pair]) -> Comparison:
    """The row of these pairs; without equal results it claims no ratio."""
    gate, measured = quality_gate(pairs), share(pairs)
    ratio = spread(_ratio, pairs)
    stands = gate == "equal"
    alone = _beside_components([pair.script for pair in pairs])
    return Comparison(
        what="wall seconds of make demo on Backlot in an empty home, against its components from a shell script",
        ours=_mean(pair.demo.seconds for pair in pairs),
        peer=_mean(pair.script.seconds for pair in pairs),
        ratio=_ratio(pairs) if stands else None,
        low=ratio.low if stands else None,
        high=ratio.high if stands else None,
        limit=f"the script itself, of whose wall time {alone:.2f} is not component work either",
        target=f"share beside component work < {TARGET}",
        holds=stands and measured < TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details=_details(pairs) | {"seconds": _where(pairs)},
    )


def _details(pairs: Sequence[Pair]) -> dict[str, Any]:
    demos, scripts = [pair.demo for pair in pairs], [pair.script for pair in pairs]
    around = spread(share, pairs)
    prepared = [sum(leg.seconds - leg.preparation_s for leg in side) for side in (demos, scripts)]
    return {
        "share_beside_component_work": share(pairs),
        "its_low_and_high": [around.low, around.high],
        "what_low_and_high_are": around.kind,
        "share_once_databases_are_prepared": 1 - sum(leg.component_s for leg in demos) / prepared[0],
        "share_if_mlflow_and_commits_count_as_work": 1
        - sum(leg.pointed_s for leg in demos) / sum(leg.seconds for leg in demos),
        "ratio_once_databases_are_prepared": prepared[0] / prepared[1],
        "unexplained_share": max(abs(_unexplained(leg)) / leg.seconds for leg in (*demos, *scripts)),
        "demo_seconds": [leg.seconds for leg in demos],
        "script_seconds": [leg.seconds for leg in scripts],
        "load_average_when_each_run_began": [leg.load for pair in pairs for leg in (pair.demo, pair.script)],
    }


def _where(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Mean seconds of each part of both, the largest of the demo first, then what is unexplained and the whole."""
    sides = {"demo": [pair.demo for pair in pairs], "script": [pair.script for pair in pairs]}
    found: dict[str, dict[str, float]] = {}
    for side, runs_of_it in sides.items():
        for part in dict.fromkeys(part for leg in runs_of_it for part in leg.parts):
            found.setdefault(part, {})[side] = _mean(leg.parts.get(part, 0.0) for leg in runs_of_it)
    ordered = sorted(found.items(), key=lambda item: (item[0] != COMPONENT, -item[1].get("demo", 0.0)))
    unexplained = {side: _mean(_unexplained(leg) for leg in found_legs) for side, found_legs in sides.items()}
    whole = {side: _mean(leg.seconds for leg in found_legs) for side, found_legs in sides.items()}
    return dict(ordered) | {"unexplained": unexplained, "the whole": whole}


def _unexplained(leg: Leg) -> float:
    return leg.seconds - sum(leg.parts.values())


def _beside_components(found: Sequence[Leg]) -> float:
    return 1 - sum(leg.component_s for leg in found) / sum(leg.seconds for leg in found)


def _mean(values: Any) -> float:
    return statistics.fmean(values)
