"""``make bench``: measure against peers, keep the ratios in docs/bench.json and show them in docs/bench.md.

ROW=id measures one, RUNS=n takes n interleaved pairs, and --size short is what the suite runs.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backlot
import checkpoint_stall
import curation
import loader
import metric_logging
import mixed_shapes
import moe
import orchestration
import rows
import shots
import step
from rows import Comparison, Trial

BENCHES: dict[str, Callable[[Trial], Comparison]] = {
    "backlot_vs_encode": backlot.backlot_vs_encode,
    "checkpoint_stall_vs_torch_save": checkpoint_stall.checkpoint_stall_vs_torch_save,
    "curation_vs_script_copy": curation.curation_vs_script_copy,
    "curation_vs_script_encode": curation.curation_vs_script_encode,
    "logging_vs_mlflow": metric_logging.logging_vs_mlflow,
    "loader_vs_pyav": loader.loader_vs_pyav,
    "mixed_shapes_vs_buckets": mixed_shapes.mixed_shapes_vs_buckets,
    "mixed_shapes_vs_padding": mixed_shapes.mixed_shapes_vs_padding,
    "moe_layer_vs_dense": moe.moe_layer_vs_dense,
    "moe_layer_vs_loop": moe.moe_layer_vs_loop,
    "orchestration_share": orchestration.orchestration_share,
    "shots_vs_koala": shots.shots_vs_koala,
    "shots_vs_scenedetect": shots.shots_vs_scenedetect,
    "step_vs_bare_loop": step.step_vs_bare_loop,
}
RECORD = Path(__file__).resolve().parents[2] / "docs" / "bench.json"


def main() -> int:
    """Measure what was asked for; 1 if any target was missed or any quality gate stayed shut."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", choices=sorted(BENCHES), help="one row; all by default")
    parser.add_argument("--runs", type=_count, default=2, help="interleaved pairs of runs")
    parser.add_argument("--size", choices=("short", "full"), default="full")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the rows are kept; a table lies beside it")
    parser.add_argument("--keep", type=Path, help="a folder that keeps every run's home")
    parsed = parser.parse_args()
    measured = []
    for name in [parsed.row] if parsed.row else sorted(BENCHES):
        row = _measure(name, parsed)
        rows.merge(parsed.record, [row])
        measured.append(row)
    print(rows.markdown(measured))
    return 0 if all(row["holds"] for row in measured) else 1


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number of pairs from 1, got {text!r}")
    return int(text)


def _measure(name: str, parsed: argparse.Namespace) -> dict[str, Any]:
    folder = parsed.keep or Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    began = time.monotonic()
    try:
        trial = Trial(parsed.size, parsed.runs, folder.absolute(), lambda done, total: _show(name, done, total, began))
        return rows.row(name, BENCHES[name](trial), parsed.size)
    finally:
        if not parsed.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _show(name: str, done: int, total: int, began: float) -> None:
    """A line after each run; they take minutes."""
    seconds = time.monotonic() - began
    eta = f"{seconds / done * (total - done):.0f}s" if done else "?"
    print(f"{name} {done}/{total} elapsed={seconds:.0f}s eta={eta}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
