"""shots_vs_scenedetect and shots_vs_koala: finding the shots of 720p footage, by CPU seconds, after the quality gate.

Both sides run in processes of their own and count from opening the file to its cuts, decoding included and imports not.
The footage is Big Buck Bunny as it is (no B-frames), copied packet by packet four times over, and Sintel enlarged to
720p with x264's defaults. Peers run with the number of threads at which they take fewer CPU seconds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

import shot_accuracy
import shot_corpus
from intervals import spread
from rows import Comparison, Trial

TARGETS = {"adaptive": 1.3, "koala": 3.0}
_OURS = Path(__file__).with_name("shot_ours.py")
_REPEATS = 4
_ENLARGED_FRAMES = 480
_SHORT_FRAMES = 48
_TIMEOUT_S = 600.0


def shots_vs_scenedetect(trial: Trial) -> Comparison:
    """Against PySceneDetect's AdaptiveDetector."""
    return _compared(trial, "adaptive", "PySceneDetect 0.7.2's AdaptiveDetector")


def shots_vs_koala(trial: Trial) -> Comparison:
    """Against Koala-36M's detector, with OpenCV's histograms and Canny and scikit-image's SSIM."""
    return _compared(trial, "koala", "Koala-36M's detector (OpenCV histograms and Canny, scikit-image SSIM)")


def footage(folder: Path, *, num_frames: int | None) -> list[Path]:
    """The 720p films of the benches; cut short for the suite."""
    films = [folder / "bunny.mp4", folder / "sintel.mp4"]
    folder.mkdir(parents=True, exist_ok=True)
    if not films[0].exists():
        _repeated(shot_corpus.CLIPS / "bigbuckbunny.mp4", films[0], num_frames or _REPEATS * 132)
        _enlarged(shot_corpus.CLIPS / "cosmos_30s.mp4", films[1], num_frames or _ENLARGED_FRAMES)
    return films


def gate(trial: Trial) -> str:
    """Whether our detector is right at least as often; the suite asks it of a few films only."""
    limit = 4 if trial.size == "short" else None
    tuning = shot_corpus.build(shot_accuracy.CACHE / "corpus", "tuning", limit=limit)
    films = shot_corpus.build(shot_accuracy.CACHE / "corpus", "test", limit=limit)
    setting = shot_accuracy.tuned_setting(tuning, shot_accuracy.found_by_peers(tuning))
    return shot_accuracy.quality_gate(
        films, shot_accuracy.by_detector(films, shot_accuracy.found_by_peers(films), setting)
    )


def _compared(trial: Trial, peer: str, peer_name: str) -> Comparison:
    films = footage(trial.folder / "footage", num_frames=_SHORT_FRAMES if trial.size == "short" else None)
    judged = gate(trial)
    threads = _best_threads(peer, films)
    pairs, decoding = _measure(trial, peer, threads, films)
    interval, ratio, target = spread(_speedup, pairs), _speedup(pairs), TARGETS[peer]
    frames = sum(_num_frames(film) for film in films)
    stands = judged == "equal"
    ours_s, peer_s = (float(np.mean([sum(pair[side]) for pair in pairs])) for side in (0, 1))
    decode_s = float(np.mean([sum(each) for each in decoding]))
    by_film = {
        film.stem: {
            "ours": _num_frames(film) / float(np.mean([pair[0][place] for pair in pairs])),
            "peer": _num_frames(film) / float(np.mean([pair[1][place] for pair in pairs])),
            "decoding all, and nothing else": _num_frames(film) / float(np.mean([each[place] for each in decoding])),
        }
        for place, film in enumerate(films)
    }
    return Comparison(
        what=f"frames of 720p footage per CPU-second, from opening a film to its shots, against {peer_name}",
        ours=frames / ours_s,
        peer=frames / peer_s,
        ratio=ratio if stands else None,
        low=interval.low if stands else None,
        high=interval.high if stands else None,
        limit=f"{frames / decode_s:.0f} frames per CPU-second: decoding every frame, and nothing else",
        target=f">= {target}",
        holds=stands and ratio >= target,
        runs=len(pairs),
        quality_gate=judged,
        details={
            "what_low_and_high_are": interval.kind,
            "share_of_the_limit": decode_s / ours_s,
            "threads_of_the_peer": "its default" if threads == 0 else threads,
            "frames per CPU second": by_film,
        },
    )


Costs = list[float]


def _measure(
    trial: Trial, peer: str, threads: int, films: Sequence[Path]
) -> tuple[list[tuple[Costs, Costs]], list[Costs]]:
    """CPU seconds of each film by both in turns, who begins alternates; and of decoding alone."""
    pairs, decoding = [], []
    for number in range(trial.num_runs):
        sides: dict[int, Costs] = {}
        for side in (0, 1) if number % 2 else (1, 0):
            sides[side] = [_peer_s(peer, threads, film) if side else _our_s("find", film) for film in films]
        pairs.append((sides[0], sides[1]))
        decoding.append([_our_s("decode", film) for film in films])
        trial.progress(number + 1, trial.num_runs)
    return pairs, decoding


def _best_threads(peer: str, films: Sequence[Path]) -> int:
    """0 is the peer's default."""
    return min((0, 1), key=lambda threads: sum(_peer_s(peer, threads, film) for film in films))


def _speedup(pairs: Sequence[tuple[Costs, Costs]]) -> float:
    return sum(sum(peer) for _, peer in pairs) / sum(sum(ours) for ours, _ in pairs)


def _our_s(what: str, film: Path) -> float:
    return _cpu_s([sys.executable, "-P", str(_OURS), what, str(film)])


def _peer_s(peer: str, threads: int, film: Path) -> float:
    return _cpu_s([shot_accuracy.peer_python(), str(shot_accuracy.PEERS), "time", peer, str(threads), str(film)])


def _cpu_s(command: Sequence[str]) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S)
    told: dict[str, Any] = json.loads(done.stdout)
    return float(told["cpu_s"])


def _num_frames(film: Path) -> int:
    with av.open(str(film)) as container:
        return container.streams.video[0].frames


def _repeated(source: Path, target: Path, num_frames: int) -> None:
    """The packets of a film, over and over."""
    with av.open(str(target), "w") as given:
        copy, base, left = None, 0, num_frames
        while left > 0:
            with av.open(str(source)) as taken:
                stream = taken.streams.video[0]
                copy = copy or given.add_stream_from_template(stream)
                packets = [packet for packet in taken.demux(stream) if packet.dts is not None][:left]
                for packet in packets:
                    assert packet.pts is not None
                    assert packet.dts is not None
                    packet.pts, packet.dts, packet.stream = packet.pts + base, packet.dts + base, copy
                    given.mux(packet)
                base = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
                left -= len(packets)


def _enlarged(source: Path, target: Path, num_frames: int) -> None:
    with av.open(str(source)) as taken, av.open(str(target), "w") as given:
        stream = given.add_stream("libx264", rate=24, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number, frame in enumerate(taken.decode(video=0)):
            if number == num_frames:
                break
            picture = frame.reformat(width=1280, height=720, format="yuv420p", interpolation="BICUBIC")
            picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, 24), PictureType.NONE
            given.mux(stream.encode(picture))
        given.mux(stream.encode(None))
