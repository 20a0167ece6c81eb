"""The peer of the curation benches, curation as a practitioner scripts it, under the interpreter of curation_peers.txt.

``curation_script.py FOLDER OUT MODE THREADS [together]`` reads every mp4 of a folder. PySceneDetect's AdaptiveDetector
finds the scenes; then each metric is one OpenCV pass over the film, vectorised, and on three frames a second where that
is enough; scenes that pass thresholds are cut by libav, by stream copy (MODE ``copy``) or x264 (``encode``), and
described in ``clips.json``. With ``together`` all metrics share one pass. Nothing of ours is imported.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

SMALL = (96, 54)
SAMPLES_PER_S = 3.0
MIN_DURATION_S = 1.0
X264 = {"crf": "18", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
Scores = np.ndarray


def frames(path: str, *, sampled: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Every frame [H, W, 3], or three a second; what is left out is decoded, but not converted."""
    capture = cv2.VideoCapture(path)
    step = max(1, round(capture.get(cv2.CAP_PROP_FPS) / SAMPLES_PER_S)) if sampled else 1
    number = 0
    while capture.grab():
        if number % step == 0:
            yield number, capture.retrieve()[1]
        number += 1


def grey(frame: np.ndarray) -> np.ndarray:
    """Luma of a frame."""
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


class Change:
    """Mean difference to the frame before, both shrunk: motion, and freezes where it is next to nothing."""

    sampled = False

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def __call__(self, frame: np.ndarray) -> float:
        small = grey(cv2.resize(frame, SMALL, interpolation=cv2.INTER_AREA))
        change = 0.0 if self._last is None else float(cv2.absdiff(small, self._last).mean()) / 255
        self._last = small
        return change


class Sampled:
    """A measure of single frames."""

    sampled = True

    def __init__(self, measure: Callable[[np.ndarray], float]) -> None:
        self._measure = measure

    def __call__(self, frame: np.ndarray) -> float:
        return self._measure(frame)


def sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian."""
    return float(cv2.Laplacian(grey(frame), cv2.CV_32F).var())


def brightness(frame: np.ndarray) -> float:
    """Mean luma."""
    return float(grey(frame).mean()) / 255


def black_bars(frame: np.ndarray) -> float:
    """Share of rows and columns at the borders that are black, as cropdetect has it."""
    luma = grey(frame)
    shares = []
    for means in (luma.mean(axis=1), luma.mean(axis=0)):
        lit = np.flatnonzero(means > 24)
        shares.append(1.0 if not len(lit) else 1 - (lit[-1] + 1 - lit[0]) / len(means))
    return float(max(shares))


def noise(frame: np.ndarray) -> float:
    """What a median filter takes away."""
    luma = grey(frame)
    return float(cv2.absdiff(luma, cv2.medianBlur(luma, 3)).mean()) / 255


METRICS: dict[str, Callable[[], Any]] = {
    "motion": Change,
    "freeze": Change,
    "sharpness": lambda: Sampled(sharpness),
    "brightness": lambda: Sampled(brightness),
    "black_bars": lambda: Sampled(black_bars),
    "noise": lambda: Sampled(noise),
}


def measured(path: str, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """Values of these metrics by frame, in one pass."""
    measures = {name: METRICS[name]() for name in names}
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    every = [name for name in names if not measures[name].sampled]
    step = max(1, round(cv2.VideoCapture(path).get(cv2.CAP_PROP_FPS) / SAMPLES_PER_S))
    for number, frame in frames(path, sampled=not every):
        for name in names if number % step == 0 else every:
            found[name][number] = measures[name](frame)
    return found


def scenes(path: str) -> list[tuple[int, int]]:
    """Frames (start, end exclusive) of each scene."""
    from scenedetect import AdaptiveDetector, SceneManager, open_video

    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    video = open_video(path)
    manager.detect_scenes(video)
    found = manager.get_scene_list(start_in_scene=True)
    return [(start.frame_num, end.frame_num) for start, end in found]


def curate(path: Path, out: Path, mode: str, *, together: bool) -> list[dict[str, Any]]:
    """Scenes with their metrics; those that pass are cut."""
    names = list(METRICS)
    values: dict[str, dict[int, float]] = {}
    for group in [names] if together else [[name] for name in names]:
        values |= measured(str(path), group)
    fps = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    rows = []
    for start, end in scenes(str(path)):
        row: dict[str, Any] = {"source": path.name, "start_frame": start, "end_frame": end}
        for name, series in values.items():
            inside = [value for number, value in series.items() if start <= number < end]
            row[name] = float(np.median(inside)) if inside else 0.0
        row["freeze"] = float(np.mean([value < 0.001 for n, value in values["freeze"].items() if start < n < end]))
        row["kept"] = (end - start) / fps >= MIN_DURATION_S and 0.02 <= row["brightness"] <= 0.75 and row["noise"] < 0.1
        rows.append(row)
    kept = [row for row in rows if row["kept"]]
    for number, row in enumerate(kept):
        row["file"] = f"{path.stem}-{number:04d}.mp4"
    (copy if mode == "copy" else encode)(path, out, kept, fps)
    return rows


def copy(path: Path, out: Path, rows: Sequence[dict[str, Any]], fps: float) -> None:
    """Copy packets from the keyframe at or before each scene's start, as ``ffmpeg -ss … -c copy`` does."""
    for row in rows:
        with av.open(str(path)) as film, av.open(str(out / row["file"]), "w") as clip:
            source: Any = film.streams.video[0]
            target = clip.add_stream_from_template(source)
            film.seek(int(row["start_frame"] / fps / source.time_base), stream=source)
            end = row["end_frame"] / fps
            for packet in film.demux(source):
                if packet.size and packet.dts is not None:
                    if float(packet.dts * source.time_base) >= end:
                        break
                    packet.stream = target
                    clip.mux(packet)


def encode(path: Path, out: Path, rows: Sequence[dict[str, Any]], fps: float) -> None:
    """Encode the frames of every scene, in one decode of the film."""
    waiting = list(rows)
    clip: Any = None
    with av.open(str(path)) as film:
        source: Any = film.streams.video[0]
        source.codec_context.thread_count = 1
        for number, frame in enumerate(film.decode(source)):
            if waiting and number == waiting[0]["start_frame"]:
                clip = av.open(str(out / waiting[0]["file"]), "w")
                target = clip.add_stream("libx264", rate=source.average_rate, options=X264)
                target.width, target.height, target.pix_fmt = frame.width, frame.height, "yuv420p"
                target.codec_context.thread_count = 1
            if clip is not None:
                frame.pict_type = av.video.frame.PictureType.NONE
                frame.pts, frame.time_base = number - waiting[0]["start_frame"], 1 / source.average_rate
                clip.mux(target.encode(frame))
                if number == waiting[0]["end_frame"] - 1:
                    clip.mux(target.encode(None))
                    clip.close()
                    clip = None
                    waiting.pop(0)
                    if not waiting:
                        return


def main() -> None:
    """See the module."""
    folder, out, mode, threads = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if threads:
        cv2.setNumThreads(threads)
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"threads;{threads}"
    out.mkdir(parents=True)
    together = sys.argv[5:] == ["together"]
    rows = [row for path in sorted(folder.glob("*.mp4")) for row in curate(path, out, mode, together=together)]
    (out / "clips.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
