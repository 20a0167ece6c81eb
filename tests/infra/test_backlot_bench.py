"""The row of Backlot against encoding: complete on a short run, and shut where equal seeds give other bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "infra" / "bench"


def test_a_short_run_gives_a_whole_row(tmp_path: Path) -> None:
    record = tmp_path / "bench.json"
    command = [sys.executable, str(BENCH / "bench.py"), "--row", "backlot_vs_encode", "--size", "short", "--runs", "2"]
    done = subprocess.run([*command, "--record", str(record)], capture_output=True, text=True, timeout=300)
    (row,) = json.loads(record.read_text())
    assert done.returncode == (0 if row["holds"] else 1)
    assert row["quality_gate"] == "equal"
    assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["details"]["frames_in_all"] == 2 * 2 * 72
    assert "160x120" in record.with_suffix(".md").read_text()


def test_clips_that_are_not_repeatable_shut_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import backlot

    pairs = [backlot.Pair(10, 1.0, 2.0, 0.5, True), backlot.Pair(10, 1.0, 2.0, 0.5, True)]
    sound = backlot.compared(pairs, 300.0)
    assert (sound.ratio, sound.ours, sound.peer, sound.holds) == (2.0, 10.0, 5.0, True)
    broken = backlot.compared([pairs[0], backlot.Pair(10, 1.0, 2.0, 0.5, False)], 300.0)
    assert (broken.ratio, broken.holds) == (None, False)
    assert broken.quality_gate.startswith("differs")
