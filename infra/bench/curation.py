"""curation_vs_script_copy and curation_vs_script_encode: the whole CPU curation against a practitioner's script.

Ours is one process that runs curate.split, curate.filter and curate.cut, its store, commits and tracking included. The
script is PySceneDetect, one OpenCV pass per metric, and clips by stream copy or x264; see ``curation_script.py``. Both
count user and system seconds of the whole process.
"""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from intervals import spread
from rows import Comparison, Trial
from shot_accuracy import peer_python
from telecine import settings, tracking
from telecine_components.media.decode import open_video
from telecine_components.media.shards import read_member

HERE = Path(__file__).resolve().parent
CLIPS = HERE.parents[2] / "shared" / "data" / "clips"
REQUIREMENTS = HERE / "curation_peers.txt"
TARGETS = {"copy": 2.0, "encode": 1.1}
MODES = {"copy": "smart", "encode": "encode"}
MEASURED = ("motion", "freeze", "blur", "noise", "exposure", "black_bars")
"""What the script measures too."""
FPS = 24
MAX_UNLIKE = 0.25
"""By which share of it our number of clips may differ from the script's (one clip always may), and our frames be fewer:
whoever keeps less cuts and encodes less."""
SHOTS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "bigbuckbunny": (0, ((0, 132),)),
    "bikes": (0, ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242))),
    "cosmos_30s": (0, ((90, 150), (484, 523), (523, 573), (573, 610), (653, 701))),
    "nasa_13013": (1, ((0, 149), (180, 240), (240, 390))),
}
"""Video stream and shots (frames, end exclusive) of each real clip."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Films: real shots in another order each, every second one mirrored, joined by hard cuts."""

    size_px: tuple[int, int]
    num_films: int
    shots_per_film: int


FULL = Setting((1280, 720), 2, 14)
SHORT = Setting((320, 180), 1, 3)


@dataclasses.dataclass(frozen=True)
class Film:
    """A film, and the frames at which its second and later shots begin."""

    path: Path
    num_frames: int
    cuts: tuple[int, ...]


def curation_vs_script_copy(trial: Trial) -> Comparison:
    """Clips are copied where that is possible, by both."""
    return _compare(trial, "copy")


def curation_vs_script_encode(trial: Trial) -> Comparison:
    """Every clip is encoded, by both with one x264 setting."""
    return _compare(trial, "encode")


def _compare(trial: Trial, mode: str) -> Comparison:
    setting = SHORT if trial.size == "short" else FULL
    folder = trial.folder / f"curation_{mode}"
    films = make_films(folder / "videos", setting)
    bench = Bench(folder, mode)
    # The first run of each is not counted: it makes caches, and its clips are what the gate looks at.
    bench.ours()
    threads = min((0, 1), key=lambda number: bench.script(threads=number))
    gate = quality_gate(bench, films)
    pairs = []
    for number in range(trial.num_runs if gate == "equal" else 0):
        sides = (bench.ours, lambda: bench.script(threads=threads))
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {side: sides[side]() for side in order}
        pairs.append((seconds[0], seconds[1]))
        trial.progress(number + 1, trial.num_runs)
    together_s = bench.script(threads=threads, together=True)
    return compared(pairs, gate, mode, films, decode_seconds(films), together_s, threads, bench.facts())


class Bench:
    """Runs both sides, each time from nothing."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder, self._mode = folder, mode
        self.home, self.script_out = folder / "home", folder / "script"
        empty = settings.from_environment({"TELECINE_HOME": str(folder / "empty")})
        tracking.connect(empty)  # what the first use of a home makes is not curation
        self._tracker = empty.home / "mlflow" / "mlflow.db"

    def ours(self) -> float:
        """CPU seconds."""
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "mlflow").mkdir(parents=True)
        shutil.copy(self._tracker, self.home / "mlflow" / "mlflow.db")
        roots = [str(HERE.parents[1] / root) for root in ("platform", "components", "models")]
        environment = {"TELECINE_HOME": str(self.home), "PYTHONPATH": os.pathsep.join(roots)}
        command = [sys.executable, str(HERE / "curation_ours.py"), str(self._folder / "videos"), MODES[self._mode]]
        return cpu_seconds(command, environment, self._folder / "ours.json")

    def script(self, *, threads: int, together: bool = False) -> float:
        """CPU seconds; ``threads`` 0 leaves the choice to the libraries."""
        shutil.rmtree(self.script_out, ignore_errors=True)
        command = [
            peer_python(requirements=REQUIREMENTS),
            str(HERE / "curation_script.py"),
            str(self._folder / "videos"),
            str(self.script_out),
        ]
        command += [self._mode, str(threads), *(["together"] if together else [])]
        return cpu_seconds(command, {}, self._folder / "script.log")

    def our_clips(self) -> list[dict[str, Any]]:
        """Rows of ``shards.parquet``, with the path of the shard."""
        outputs = json.loads((self._folder / "ours.json").read_text().splitlines()[-1])["cut"]
        shards = Path(outputs["shards_uri"].removeprefix("file://"))
        rows: list[dict[str, Any]] = pq.read_table(shards / "shards.parquet").to_pylist()
        return [row | {"path": shards / row["shard"]} for row in rows]

    def script_clips(self) -> list[dict[str, Any]]:
        """Rows of the scenes that the script kept."""
        rows = json.loads((self.script_out / "clips.json").read_text())
        return [row for row in rows if row["kept"]]

    def facts(self) -> dict[str, Any]:
        """What the clips of both sides are like."""
        ours, theirs = self.our_clips(), self.script_clips()
        our_frames, their_frames = frames_of(ours, theirs)
        ways = [row["cut"] for row in ours]
        return {
            "clips_of_ours": len(ours),
            "clips_of_the_script": len(theirs),
            "ours_copied_joined_and_encoded": [ways.count(way) for way in ("copy", "smart", "encode")],
            "frames_in_clips_of_ours": our_frames,
            "frames_in_scenes_of_the_script": their_frames,
        }


def frames_of(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How many frames the clips of ours and the scenes of the script have."""
    return (
        sum(row["cut_end_frame"] - row["cut_start_frame"] for row in ours),
        sum(row["end_frame"] - row["start_frame"] for row in theirs),
    )


def quality_gate(bench: Bench, films: Sequence[Film]) -> str:
    """``equal``, or what is wrong with our clips."""
    cuts = {film.path.name: film.cuts for film in films}
    clips, odd = bench.our_clips(), []
    for row in clips:
        start, end = row["cut_start_frame"], row["cut_end_frame"]
        if any(start < cut < end for cut in cuts[row["source"]]):
            odd.append(f"clip {row['clip_id']} of {row['source']} holds a cut")
        odd += [f"clip {row['clip_id']} has no {name}" for name in MEASURED if row[name] is None]
        if (found := _num_frames(row, bench.home)) != end - start:
            odd.append(f"clip {row['clip_id']} plays {found} of {end - start} frames")
    theirs = bench.script_clips()
    if not clips or abs(len(clips) - len(theirs)) > max(1, MAX_UNLIKE * len(theirs)):
        odd.append(f"{len(clips)} clips of ours, {len(theirs)} of the script")
    our_frames, their_frames = frames_of(clips, theirs)
    if our_frames < (1 - MAX_UNLIKE) * their_frames:
        odd.append(f"{our_frames} frames in clips of ours, {their_frames} in those of the script")
    return f"differs: {'; '.join(odd[:5])}" if odd else "equal"


def _num_frames(row: Mapping[str, Any], scratch: Path) -> int:
    path = scratch / "clip.mp4"
    path.write_bytes(read_member(row["path"], row["offset"], row["length"]))
    with open_video(path) as video:
        return sum(1 for _ in video.frames())


def compared(
    pairs: Sequence[tuple[float, float]],
    gate: str,
    mode: str,
    films: Sequence[Film],
    decode_s: float,
    together_s: float,
    threads: int,
    facts: Mapping[str, Any],
) -> Comparison:
    """The row, from CPU seconds of ours and of the script."""
    frames = sum(film.num_frames for film in films)
    ours, peer = (frames * len(pairs) / sum(pair[side] for pair in pairs) if pairs else 0.0 for side in (0, 1))
    interval = spread(_speedup, pairs) if pairs else None
    each = "copied where that is possible" if mode == "copy" else "encoded"
    return Comparison(
        what=f"frames per CPU second of the whole curation, clips {each}: split, filter and cut, against a script",
        ours=ours,
        peer=peer,
        ratio=_speedup(pairs) if pairs else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        limit=f"{frames / decode_s:.0f} frames per CPU second: decoding every frame once, and nothing else",
        target=f">= {TARGETS[mode]}",
        holds=bool(pairs) and _speedup(pairs) >= TARGETS[mode],
        runs=len(pairs),
        quality_gate=gate,
        details={
            "what_low_and_high_are": interval.kind if interval else "none",
            "share_of_the_limit": ours * decode_s / frames,
            "ratio_if_the_script_made_all_its_measures_in_one_pass": ours * together_s / frames,
            "threads_of_the_script": "1" if threads else "as the libraries choose",
            "footage": f"{len(films)} films of real shots scaled to one size, {frames} frames, x264's keyframes",
            **facts,
        },
    )


def _speedup(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(peer for _, peer in pairs) / sum(ours for ours, _ in pairs)


def cpu_seconds(command: Sequence[str], environment: Mapping[str, str], said: Path) -> float:
    """User and system seconds of a process and all its descendants; raises :class:`RuntimeError` if it fails."""
    foreign = ("TELECINE_", "MLFLOW_", "PYTHONPATH", "OPENCV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    errors, seconds = said.with_suffix(".err"), said.with_suffix(".seconds")
    counted = [sys.executable, str(HERE / "whole_cpu.py"), str(seconds), *command]
    with said.open("w") as out, errors.open("w") as err:
        code = subprocess.run(counted, stdout=out, stderr=err, env=kept | dict(environment)).returncode
    if code:
        raise RuntimeError(f"{command[1]} ended with {code}: {errors.read_text()[-2000:]}")
    return float(seconds.read_text())


def decode_seconds(films: Sequence[Film]) -> float:
    """CPU seconds to decode every frame on one thread."""
    began = time.process_time()
    for film in films:
        with open_video(film.path) as video:
            for _ in video.frames():
                pass
    return time.process_time() - began


def make_films(folder: Path, setting: Setting) -> list[Film]:
    """Write the films; equal settings give equal films."""
    folder.mkdir(parents=True)
    shots = [(name, stream, span) for name, (stream, spans) in SHOTS.items() for span in spans]
    films = []
    for number in range(setting.num_films):
        chosen = np.random.default_rng(number).permutation(len(shots))[: setting.shots_per_film]
        path = folder / f"film{number}.mp4"
        lengths = _write_film(path, [shots[index] for index in chosen], setting, mirrored=number % 2 == 1)
        edges = list(itertools.accumulate(lengths))
        films.append(Film(path, edges[-1], tuple(edges[:-1])))
    return films


def _write_film(path: Path, shots: Sequence[Any], setting: Setting, *, mirrored: bool) -> list[int]:
    stamps = itertools.count()
    with av.open(str(path), "w") as film:
        target = film.add_stream("libx264", rate=FPS, options={"preset": "fast", "crf": "20", "threads": "1"})
        target.width, target.height = setting.size_px
        target.pix_fmt = "yuv420p"
        for name, stream, (start, end) in shots:
            with av.open(str(CLIPS / f"{name}.mp4")) as clip:
                for frame in itertools.islice(clip.decode(video=stream), start, end):
                    picture = frame.reformat(*setting.size_px, format="rgb24").to_ndarray()
                    turned = np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)
                    shown = av.VideoFrame.from_ndarray(turned, format="rgb24")
                    shown.pts, shown.time_base = next(stamps), Fraction(1, FPS)
                    film.mux(target.encode(shown))
        film.mux(target.encode(None))
    return [end - start for _, _, (start, end) in shots]
