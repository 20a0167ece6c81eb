"""The benches of the whole curation: what shuts their gate, and what the script measures."""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.planes import luma, planes_of
from telecine_components.media.shards import ShardWriter

BENCH = Path(__file__).parents[2] / "infra" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


@dataclasses.dataclass
class Sides:
    """What a run of both sides left, without the run."""

    home: Path
    ours: list[dict[str, Any]]
    num_theirs: int = 1
    frames_of_theirs: int = 24

    def our_clips(self) -> list[dict[str, Any]]:
        return self.ours

    def script_clips(self) -> list[dict[str, Any]]:
        return [{"start_frame": 0, "end_frame": self.frames_of_theirs} for _ in range(self.num_theirs)]


@pytest.fixture
def sides(tmp_path: Path, bench: None) -> Sides:
    """One clip of ours: frames 10 to 30 of a film."""
    import curation

    write_mp4(tmp_path / "clip.mp4", np.zeros((20, 32, 32, 3), np.uint8), 24)
    with ShardWriter(tmp_path / "shard.tar") as shard:
        place = shard.add("ab", {"mp4": (tmp_path / "clip.mp4").read_bytes()})["mp4"]
    row: dict[str, Any] = {name: 0.5 for name in curation.MEASURED}
    row |= {"clip_id": "ab", "source": "film0.mp4", "cut_start_frame": 10, "cut_end_frame": 30}
    return Sides(tmp_path, [row | place._asdict() | {"path": tmp_path / "shard.tar"}])


def test_clips_that_play_and_hold_no_cut_open_the_gate(sides: Sides, tmp_path: Path) -> None:
    import curation

    films = [curation.Film(tmp_path / "film0.mp4", 60, (10, 30))]
    assert curation.quality_gate(sides, films) == "equal"


@pytest.mark.parametrize(
    ("cuts", "change", "theirs", "said"),
    [
        ((29,), {}, (1, 24), "clip ab of film0.mp4 holds a cut"),
        ((10,), {"cut_end_frame": 31}, (1, 24), "clip ab plays 20 of 21 frames"),
        ((10,), {"noise": None}, (1, 24), "clip ab has no noise"),
        ((10,), {}, (3, 8), "1 clips of ours, 3 of the script"),
        ((10,), {}, (1, 27), "20 frames in clips of ours, 27 in those of the script"),
    ],
)
def test_a_fault_in_our_clips_shuts_the_gate(
    sides: Sides, tmp_path: Path, cuts: tuple[int, ...], change: dict[str, Any], theirs: tuple[int, int], said: str
) -> None:
    import curation

    sides.ours[0] |= change
    sides.num_theirs, sides.frames_of_theirs = theirs
    assert curation.quality_gate(sides, [curation.Film(tmp_path / "film0.mp4", 60, cuts)]) == f"differs: {said}"


def test_no_clip_at_all_shuts_the_gate(sides: Sides, tmp_path: Path) -> None:
    import curation

    sides.ours, sides.num_theirs = [], 1
    assert curation.quality_gate(sides, []).startswith("differs: 0 clips of ours, 1 of the script")


def test_the_films_change_where_they_say(bench: None, tmp_path: Path, real_clips: Path) -> None:
    import curation

    (film,) = curation.make_films(tmp_path / "films", curation.SHORT)
    with open_video(film.path) as video:
        greys = [np.asarray(luma(planes_of(frame), 32, 18)).astype(int) for _, frame in video.frames()]
    assert len(greys) == film.num_frames
    changes = [np.abs(after - before).mean() for before, after in itertools.pairwise(greys)]
    assert sorted(np.argsort(changes)[-len(film.cuts) :] + 1) == list(film.cuts)


def test_the_script_tells_bars_blur_noise_and_a_freeze(bench: None, tmp_path: Path) -> None:
    import curation_script

    draw = np.random.default_rng(0)
    sharp = draw.integers(60, 200, (90, 160, 3), np.uint8)
    flat = np.full((90, 160, 3), 128, np.uint8)
    barred = sharp.copy()
    barred[:18] = barred[-18:] = 0
    assert curation_script.black_bars(barred) == pytest.approx(0.4)
    assert curation_script.black_bars(sharp) == 0
    assert curation_script.sharpness(sharp) > 100 > curation_script.sharpness(flat) == 0
    assert curation_script.noise(sharp) > curation_script.noise(flat) == 0
    change = curation_script.Change()
    assert [change(frame) > 0 for frame in (sharp, sharp, flat)] == [False, False, True]


def test_seconds_are_those_of_all_processes_also_of_those_that_nobody_waits_for(bench: None, tmp_path: Path) -> None:
    import curation

    spin = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {spin!r}])"
    assert curation.cpu_seconds([sys.executable, "-c", child], {}, tmp_path / "said.txt") >= 0.3
    failing = [sys.executable, "-c", "import sys; print('never', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(RuntimeError, match=r"ended with 3: never"):
        curation.cpu_seconds(failing, {}, tmp_path / "said.txt")
