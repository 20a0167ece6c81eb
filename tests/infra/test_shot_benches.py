"""The shot corpus, the rule by which detectors are judged on it, and the gate of the shot benches.

The peers need an environment of their own from the package index, so the suite leaves their runs to ``make bench``.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "infra" / "bench"
SLIDES: dict[str, Any] = {"source": "slides", "seed": 5, "effect": "none", "frames": 20, "look": 0}


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


def _film(*joins: dict[str, Any]) -> dict[str, Any]:
    parts = [SLIDES | {"number": number} for number in range(len(joins) + 1)]
    names = {"name": "film", "split": "test", "cast": "backlot", "encoding": "telecine"}
    return names | {"seed": 1, "fades_in": False, "fades_out": False, "parts": parts, "joins": list(joins)}


def _judged_film(*truths: tuple[str, int, int], cast: str = "real", ignored: tuple[tuple[int, int], ...] = ()) -> Any:
    from shot_corpus import Film, Truth

    planted = tuple(Truth(*truth) for truth in truths)
    return Film("film", "test", cast, Path("film.mp4"), 200, planted, ignored, ())


def test_the_frozen_manifest_is_what_its_script_draws() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "shot_plan.py")], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == json.loads((BENCH / "shot_corpus.json").read_text())


def test_no_source_is_in_both_splits() -> None:
    sources: dict[str, set[str]] = {"tuning": set(), "test": set()}
    for film in json.loads((BENCH / "shot_corpus.json").read_text())["films"]:
        parts = film.get("parts") or [film["natural"]]
        known = [f"{part['source']} {part['seed']}" if "seed" in part else part["source"] for part in parts]
        sources[film["split"]].update(known)
    assert not sources["tuning"] & sources["test"]
    assert min(map(len, sources.values())) > 100


def test_planted_transitions_lie_where_the_frames_change() -> None:
    import shot_corpus

    joins = (
        {"kind": "cut", "similar": True},
        {"kind": "dissolve", "frames": 4, "eased": False},
        {"kind": "fade", "out": 3, "held": 2, "in": 3, "level": 0},
    )
    frames, truths, ignored = shot_corpus.compose(_film(*joins))
    changed = np.flatnonzero((frames[1:] != frames[:-1]).any(axis=(1, 2, 3))).tolist()
    assert [(truth.kind, truth.first, truth.last) for truth in truths] == [
        ("similar", 19, 19),
        ("dissolve", 35, 39),
        ("fade", 52, 60),
    ]
    held = 56  # the pair of two plain frames
    assert changed == [19, *range(35, 40), *(pair for pair in range(52, 61) if pair != held)]
    assert ignored == []


def test_the_first_detection_in_a_transition_is_right_and_further_ones_are_false() -> None:
    import shot_score

    film = _judged_film(("cut", 30, 30), ("dissolve", 60, 72), ignored=((190, 198),))
    found = {"film": [29, 62, 70, 100, 195]}
    assert shot_score.score([film], found, 0) == shot_score.Score(right=1, false=3, missed=1)
    assert shot_score.score([film], found, 1) == shot_score.Score(right=2, false=2, missed=0)
    assert shot_score.cuts_alone([film], found, 1) == shot_score.Score(right=1, false=1, missed=0)
    assert shot_score.recall([film], found, 0, "cut") == (0, 1)
    assert shot_score.Score(right=3, false=1, missed=2).f1 == pytest.approx(6 / 9)
    assert shot_score.Score().f1 == 1.0


def test_the_gate_opens_only_for_a_detector_that_is_right_more_often() -> None:
    import shot_accuracy

    films = [_judged_film(("cut", 30, 30), ("dissolve", 60, 72))]
    all_right, half, wrong = {"film": [30, 66]}, {"film": [30]}, {"film": [10]}
    rivals = {name: half for name in shot_accuracy.RIVALS}
    assert shot_accuracy.quality_gate(films, rivals | {"ours": all_right}) == "equal"
    assert "overall at tolerance 0: 0.667 against 0.667" in shot_accuracy.quality_gate(films, rivals | {"ours": half})
    assert "hard cuts" in shot_accuracy.quality_gate(films, rivals | {"ours": wrong})


def test_our_side_finds_the_cut_of_a_small_film_and_tells_its_cost(tmp_path: Path) -> None:
    import shot_corpus

    film = shot_corpus.medley(_film({"kind": "cut"}), tmp_path)
    command = [sys.executable, "-P", str(BENCH / "shot_ours.py"), "find", str(film.path)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert told["cuts"] == [19]
    assert told["cpu_s"] > 0


def test_the_benchs_footage_is_720p_and_keeps_its_length(real_clips: Path, tmp_path: Path) -> None:
    import shots
    from telecine_components.media.decode import open_video

    for film in shots.footage(tmp_path, num_frames=12):
        with open_video(film) as video:
            assert (video.width_px, video.height_px) == (1280, 720)
            assert sum(1 for _ in video.frames()) == 12


def test_without_deblocking_the_same_cuts_are_found(real_clips: Path) -> None:
    from telecine_components.media.decode import open_video
    from telecine_components.media.glance import glance_of
    from telecine_components.media.planes import planes_of
    from telecine_components.media.shots.film import film_of
    from telecine_components.media.shots.finder import ShotFinder

    for name in ("bikes", "carphone"):
        finder = ShotFinder()
        with open_video(real_clips / f"{name}.mp4") as video:
            for index, (time_s, frame) in enumerate(video.frames()):
                finder.look_at(glance_of(planes_of(frame), index, time_s))
        assert film_of(real_clips / f"{name}.mp4").transitions == finder.transitions()
