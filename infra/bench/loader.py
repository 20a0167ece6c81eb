"""loader_vs_pyav: training samples of random windows, from shards, against random access into the films by PyAV.

The peer does what a plain data set class does: it opens the film, seeks to the keyframe before the window and decodes
to the window's end. It converts only the frames of the window, by swscale, which is the fastest way to do so; the
shards hold what swscale makes, so that both sides give the same bytes.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer

from intervals import spread
from rows import Comparison, Trial
from telecine_components.media.decode import open_video
from telecine_components.media.shards import ShardWriter, array_bytes
from telecine_components.training.loader import Batch, Loader, Sample
from telecine_models.pixels import to_model_range

TARGET = 2.0
FPS = 24
BATCH = 4
_SEED = 21


@dataclasses.dataclass(frozen=True)
class Setting:
    """Films, and the windows that are samples of them.

    Attributes:
        keyframe_every: frames between keyframes; the fewer, the better for the peer.
        windows_per_film: samples of a film, at random places.
    """

    film_px: tuple[int, int]
    num_films: int
    num_frames: int
    keyframe_every: int
    sample_px: tuple[int, int]
    window: int
    windows_per_film: int
    pairs_per_run: int


FULL = Setting((640, 360), 4, 240, 24, (256, 144), 16, 12, 12)
SHORT = Setting((96, 72), 2, 48, 12, (32, 24), 8, 4, 3)


@dataclasses.dataclass(frozen=True)
class Window:
    """A sample to be: frames ``start`` to ``start + window`` of a film."""

    film: Path
    start: int


def loader_vs_pyav(trial: Trial) -> Comparison:
    """Build films and shards, compare every sample with a full decode, then read batches in turns."""
    setting = SHORT if trial.size == "short" else FULL
    folder = trial.folder / "loader"
    folder.mkdir(parents=True, exist_ok=True)
    films = [_film(folder / f"film{number}.mp4", number, setting) for number in range(setting.num_films)]
    windows = _windows(films, setting)
    samples = write_shard(folder / "shard.tar", windows, setting)
    loader = Loader(samples, lambda name: folder / name, seed=0)
    gate = quality_gate(loader, windows, setting)
    pairs = _measure(trial, loader, windows, setting) if gate == "equal" else []
    sizes = {"shard": (folder / "shard.tar").stat().st_size, "films": sum(film.stat().st_size for film in films)}
    return compared(pairs, gate, setting, copy_seconds(samples, folder), sizes)


def decoded(window: Window, setting: Setting) -> np.ndarray:
    """The window's frames [F, H, W, 3] by the peer: open, seek, decode to the end of the window."""
    frames: list[np.ndarray] = []
    with av.open(str(window.film)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        _seek(container, window.start)
        for frame in container.decode(stream):
            number = round(float(frame.time or 0) * FPS)
            if number >= window.start:
                frames.append(picture(frame, setting))
            if len(frames) == setting.window:
                break
    return np.stack(frames)


def picture(frame: av.VideoFrame, setting: Setting) -> np.ndarray:
    """A frame of a sample [H, W, 3]."""
    width_px, height_px = setting.sample_px
    return frame.reformat(width=width_px, height=height_px, format="rgb24", interpolation="AREA").to_ndarray()


def _seek(container: InputContainer, number: int) -> None:
    stream = container.streams.video[0]
    assert stream.time_base is not None
    container.seek(int(number / FPS / stream.time_base), backward=True, any_frame=False, stream=stream)


def peer_batch(windows: Sequence[Window], setting: Setting) -> Batch:
    """A batch as the loader's, from the films."""
    frames = np.stack([decoded(window, setting) for window in windows])
    return Batch(to_model_range(torch.from_numpy(frames)), ["" for _ in windows])


def write_shard(path: Path, windows: Sequence[Window], setting: Setting) -> list[Sample]:
    """Decode every film once from its first frame to its last, and write its windows."""
    found, whole = {}, {film: _full_decode(film, setting) for film in {window.film for window in windows}}
    with ShardWriter(path) as shard:
        for number, window in enumerate(windows):
            frames = whole[window.film][window.start : window.start + setting.window]
            found[number] = shard.add(f"s{number}", {"frames.npy": array_bytes(frames)})["frames.npy"]
    width_px, height_px = setting.sample_px
    shared: dict[str, Any] = {
        "caption": "",
        "split": "train",
        "shard": path.name,
        "shard_digest": "",
        "fps": float(FPS),
    }
    size: dict[str, Any] = {"num_frames": setting.window, "height_px": height_px, "width_px": width_px}
    return [
        Sample(sample_id=f"s{number}", clip_id=f"s{number}", **place._asdict(), **shared, **size)
        for number, place in found.items()
    ]


def quality_gate(loader: Loader, windows: Sequence[Window], setting: Setting) -> str:
    """``equal`` if both give the frames of a full decode, every one of them."""
    whole = {film: _full_decode(film, setting) for film in {window.film for window in windows}}
    odd = []
    for number, window in enumerate(windows):
        truth = whole[window.film][window.start : window.start + setting.window]
        for side, frames in (("ours", loader.frames(number)), ("peer", decoded(window, setting))):
            if not np.array_equal(frames, truth):
                odd.append(f"{side} at frame {window.start} of {window.film.name}")
    return f"differs: {', '.join(odd)}" if odd else "equal"


def copy_seconds(samples: Sequence[Sample], folder: Path) -> float:
    """CPU seconds a sample to copy its bytes out of the page cache, and nothing else; the median of several passes."""
    passes, buffer = [], bytearray(max(sample.length for sample in samples))
    for _ in range(5):
        with (folder / samples[0].shard).open("rb", buffering=0) as file:
            began = time.process_time()
            for sample in samples:
                file.seek(sample.offset)
                file.readinto(memoryview(buffer)[: sample.length])
            passes.append((time.process_time() - began) / len(samples))
    return float(np.median(passes))


def compared(
    pairs: Sequence[tuple[float, float]], gate: str, setting: Setting, copy_s: float, sizes: dict[str, int]
) -> Comparison:
    """The row, from CPU seconds a batch of ours and of the peer."""
    ours, peer = (BATCH * len(pairs) / sum(pair[side] for pair in pairs) if pairs else 0.0 for side in (0, 1))
    interval = spread(_speedup, pairs) if pairs else None
    return Comparison(
        what=(
            f"samples per CPU second, {setting.window} frames of {'x'.join(map(str, setting.sample_px))} at random "
            "places, by our loader from shards against PyAV from the films (open, seek to the keyframe, decode)"
        ),
        ours=ours,
        peer=peer,
        ratio=_speedup(pairs) if pairs else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        limit=f"{1 / copy_s:.0f} samples a second: one copy of their bytes out of the page cache",
        target=f">= {TARGET}",
        holds=bool(pairs) and _speedup(pairs) >= TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details={
            "what_low_and_high_are": interval.kind if interval else "none",
            "films": f"{'x'.join(map(str, setting.film_px))}, H.264, a keyframe every {setting.keyframe_every} frames",
            "share_of_the_limit": ours * copy_s,
            "what_it_costs": "the films are decoded once beforehand, and decoded frames take more room",
            "bytes_of_shards_over_those_of_films": sizes["shard"] / sizes["films"],
        },
    )


def _speedup(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(peer for _, peer in pairs) / sum(ours for ours, _ in pairs)


def _measure(trial: Trial, loader: Loader, windows: Sequence[Window], setting: Setting) -> list[tuple[float, float]]:
    """CPU seconds of batches by both in turns; who begins alternates, and a first batch of each is not counted."""
    pairs, total = [], trial.num_runs * setting.pairs_per_run
    for number in range(-1, total):
        places = range((number + 1) * BATCH, (number + 2) * BATCH)
        chosen = [windows[loader.index_at(place)] for place in places]
        seconds = {}
        for side in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            if side:
                peer_batch(chosen, setting)
            else:
                loader.batch(places[0], BATCH)
            seconds[side] = time.process_time() - began
        if number >= 0:
            pairs.append((seconds[0], seconds[1]))
            trial.progress(number + 1, total)
    return pairs


def _full_decode(film: Path, setting: Setting) -> np.ndarray:
    with open_video(film) as video:
        return np.stack([picture(frame, setting) for _, frame in video.frames()])


def _windows(films: Sequence[Path], setting: Setting) -> list[Window]:
    draw = np.random.default_rng(_SEED)
    last = setting.num_frames - setting.window
    return [Window(film, int(draw.integers(last + 1))) for film in films for _ in range(setting.windows_per_film)]


def _film(path: Path, seed: int, setting: Setting) -> Path:
    """A textured picture that slides, so that there is something to predict and something to code."""
    width, height = setting.film_px
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, size=(height // 8 + 1, (width + 2 * setting.num_frames) // 8 + 1, 3), dtype=np.uint8)
    wide = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = setting.keyframe_every
        for number in range(setting.num_frames):
            picture = np.ascontiguousarray(wide[:, 2 * number : 2 * number + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
