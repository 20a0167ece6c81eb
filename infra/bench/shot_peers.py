"""The peers of the shot benches, run by the interpreter of peers.txt: PySceneDetect's detectors, and Koala-36M's.

``shot_peers.py find FILE…`` prints, as JSON, the pairs at which each detector cuts each file;
``shot_peers.py time DETECTOR THREADS FILE`` the CPU seconds that one detector took, its decoding included.
Nothing of ours is imported. Pair i is frames i and i + 1; PySceneDetect names the frame after a cut.
"""

import itertools
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, HistogramDetector, SceneManager, open_video
from skimage.metrics import structural_similarity

GRID = {
    "adaptive_threshold": (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0),
    "window_width": (1, 2, 3, 4, 5),
    "min_scene_len": (1, 8, 15),
    "min_content_val": (3.0, 5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0),
}
DETECTORS: dict[str, Callable[[], Any]] = {
    "adaptive": AdaptiveDetector,
    "content": ContentDetector,
    "histogram": HistogramDetector,
}


class _Remembering(AdaptiveDetector):  # type: ignore[misc]  # its types are not installed here
    """Keeps the scores of frames, of which a tuned detector is only another reading."""

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[float] = []

    def _calculate_frame_score(self, timecode: Any, frame_img: Any) -> float:
        score = float(super()._calculate_frame_score(timecode, frame_img))
        self.scores.append(score)
        return score


class _Reading(AdaptiveDetector):  # type: ignore[misc]  # as above
    """An AdaptiveDetector whose frames were scored before."""

    def __init__(self, scores: list[float], **setting: Any) -> None:
        super().__init__(**setting)
        self._scores = iter(scores)

    def _calculate_frame_score(self, timecode: Any, frame_img: Any) -> float:
        return next(self._scores)


def by_scenedetect(path: str, detector: Any) -> list[int]:
    """Pairs at which a detector cuts, through PySceneDetect's own scene manager with its defaults."""
    video = open_video(path)
    manager = SceneManager()
    manager.add_detector(detector)
    manager.detect_scenes(video, show_progress=False)
    return [cut.frame_num - 1 for cut in manager.get_cut_list(show_warning=False)]


def by_settings(scores: list[float]) -> dict[str, list[int]]:
    """Pairs at which AdaptiveDetector cuts under each setting of the grid."""
    found = {}
    for values in itertools.product(*GRID.values()):
        setting = dict(zip(GRID, values, strict=True))
        detector = _Reading(scores, **setting)
        cuts = [cut for index in range(len(scores)) for cut in detector.process_frame(FrameTimecode(index, 24.0), None)]
        found[json.dumps(setting)] = [cut.frame_num - 1 for cut in cuts]
    return found


def koala_scores(path: str) -> np.ndarray:
    """Koala-36M's score of each pair: its published feature code, one frame at a time."""
    capture, last = cv2.VideoCapture(path), None
    scores: list[float] = []
    while True:
        read, frame = capture.read()
        if not read:
            return np.array(scores)
        small = cv2.resize(frame, (256, 256))
        histograms = np.asarray([cv2.calcHist([small], [channel], None, [254], [1, 255]) for channel in range(3)])
        grey = cv2.resize(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (128, 128))
        edges = np.maximum(grey, cv2.Canny(grey, 100, 200))
        if last is not None:
            colour = cv2.compareHist(last[0], histograms, cv2.HISTCMP_CORREL)
            structure = structural_similarity(last[1], edges, data_range=255)
            scores.append(4.61480465 * colour + 3.75211168 * structure - 5.485968377115124)
        last = histograms, edges


def koala_flags(scores: np.ndarray) -> np.ndarray:
    """Which pairs are transitions, by the published rule."""
    smooth, flags = scores.copy(), scores < 0
    if len(scores) > 2:
        smooth[1:-1] = np.convolve(scores, np.ones(3) / 3, mode="valid")
    for pair in range(8, len(scores)):
        past = np.sort(smooth[pair - 8 : pair])[1:6]
        flags[pair] |= smooth[pair] < 0.75 and smooth[pair] < past.mean() - 3 * max(0.2, past.std())
    return flags


def by_koala(path: str) -> list[int]:
    """A run of flagged pairs is one transition, told where its score is lowest."""
    scores = koala_scores(path)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], koala_flags(scores).astype(int), [0]]))).reshape(-1, 2)
    return [int(first + scores[first:end].argmin()) for first, end in edges]


def find(path: str) -> dict[str, Any]:
    """What every detector finds in a file."""
    found: dict[str, Any] = {name: by_scenedetect(path, make()) for name, make in DETECTORS.items()}
    remembering = _Remembering()
    by_scenedetect(path, remembering)
    return found | {"koala": by_koala(path), "grid": by_settings(remembering.scores)}


def timed(detector: str, path: str) -> dict[str, Any]:
    """CPU seconds (user and system, all threads) from opening a file to its cuts."""
    began = _cpu_s()
    cuts = by_koala(path) if detector == "koala" else by_scenedetect(path, DETECTORS[detector]())
    return {"cpu_s": _cpu_s() - began, "cuts": cuts}


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """See the module."""
    if sys.argv[1] == "find":
        print(json.dumps({path: find(path) for path in sys.argv[2:]}))
        return
    detector, threads, path = sys.argv[2:]
    if int(threads):
        cv2.setNumThreads(int(threads))
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"threads;{threads}"
    print(json.dumps(timed(detector, path)))


if __name__ == "__main__":
    main()
