"""How fast Backlot draws clips, against encoding the same frames as H.264, which whoever stores them has to do."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from intervals import bootstrap
from rows import Comparison, Trial
from telecine_components.media.encode import write_mp4
from telecine_models.backlot import Clip, clip

TARGET = 1.0
SIZES: dict[str, Any] = {"num_frames": 72, "fps": 12, "width_px": 160, "height_px": 120}
TRAINING_SIZES: dict[str, Any] = {"num_frames": 8, "fps": 8, "width_px": 32, "height_px": 32}
NUM_CLIPS = {"short": 2, "full": 24}
NUM_TRAINING_CLIPS = {"short": 20, "full": 400}
KINDS: tuple[dict[str, Any], ...] = (
    {"style": None},
    {"style": None, "actions": "random"},
    {"physics": "bounce"},
    {"physics": "collision"},
    {"physics": "occlusion"},
)
"""What is drawn, in turn: every style and camera move, play by keys and mouse, and physics."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """CPU seconds of drawing some clips, of encoding their frames, and of doing that at x264's fastest preset."""

    num_frames: int
    drawing_s: float
    encoding_s: float
    fastest_encoding_s: float
    is_repeatable: bool


def backlot_vs_encode(trial: Trial) -> Comparison:
    """Draw and encode in turn, on one core, other clips in every pair."""
    # Textures are made once per process.
    _draw(range(40), SIZES | {"num_frames": 4})
    num = NUM_CLIPS[trial.size]
    pairs = []
    trial.folder.mkdir(parents=True, exist_ok=True)
    trial.progress(0, trial.num_runs)
    for number in range(trial.num_runs):
        pairs.append(_measure(range(number * num, (number + 1) * num), trial.folder / "clip.mp4"))
        trial.progress(number + 1, trial.num_runs)
    return compared(pairs, _clips_per_s(range(NUM_TRAINING_CLIPS[trial.size])))


def compared(pairs: Sequence[Pair], training_clips_per_s: float) -> Comparison:
    """The row of these pairs; without equal bytes for equal seeds it claims no ratio."""
    gate = "equal" if all(pair.is_repeatable for pair in pairs) else "differs: a clip drawn again has other bytes"
    low, high = bootstrap(_ratio, pairs)
    stands, ratio = gate == "equal", _ratio(pairs)
    num_frames, drawing, encoding, fastest = (
        sum(getattr(pair, name) for pair in pairs)
        for name in ("num_frames", "drawing_s", "encoding_s", "fastest_encoding_s")
    )
    return Comparison(
        what="frames of 160x120 per CPU-second, drawn with all truth, against encoded as the platform stores them",
        ours=num_frames / drawing,
        peer=num_frames / encoding,
        ratio=ratio if stands else None,
        low=low if stands else None,
        high=high if stands else None,
        limit="none of ours: to draw takes no less for being stored afterwards",
        target=f"ratio >= {TARGET}",
        holds=stands and ratio >= TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details={
            "ratio_to_the_fastest_preset_of_x264": fastest / drawing,
            "clips_of_8_frames_of_32x32_per_cpu_second": training_clips_per_s,
            "frames_in_all": num_frames,
        },
    )


def _ratio(pairs: Sequence[Pair]) -> float:
    return sum(pair.encoding_s for pair in pairs) / sum(pair.drawing_s for pair in pairs)


def _measure(seeds: range, path: Path) -> Pair:
    drawn: list[Clip] = []
    drawing_s = _cpu_s(lambda: drawn.extend(_draw(seeds, SIZES)))
    encoding_s, fastest_s = (
        _cpu_s(functools.partial(_encode, drawn, path, preset)) for preset in ("fast", "ultrafast")
    )
    again = _draw(seeds[:1], SIZES)[0]
    same = _digest(again) == _digest(drawn[0])
    return Pair(len(drawn) * SIZES["num_frames"], drawing_s, encoding_s, fastest_s, same)


def _clips_per_s(seeds: range) -> float:
    _draw(seeds[:40], TRAINING_SIZES)
    return len(seeds) / _cpu_s(lambda: _draw(seeds, TRAINING_SIZES))


def _encode(drawn: list[Clip], path: Path, preset: str) -> None:
    for each in drawn:
        write_mp4(path, each.frames, SIZES["fps"], preset=preset)


def _draw(seeds: Sequence[int], sizes: dict[str, Any]) -> list[Clip]:
    kinds = islice(cycle(KINDS), len(seeds))
    return [clip(seed, **sizes, **kind) for seed, kind in zip(seeds, kinds, strict=True)]


def _digest(drawn: Clip) -> str:
    return hashlib.sha256(drawn.frames.tobytes() + drawn.depth.tobytes() + drawn.instances.tobytes()).hexdigest()


def _cpu_s(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
