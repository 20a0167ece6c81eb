"""The shot corpus: films with exact truth about their transitions, built from a frozen manifest.

Real material is read from ``../shared/data/clips`` beside the checkout. Films that need clips that are not there cannot
be built. Pair i is frames i and i + 1.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

import shot_effects
from shot_material import FPS, STREAMS, backlot, leaves, real, slide
from telecine_components.media.encode import write_mp4

MANIFEST = Path(__file__).with_name("shot_corpus.json")
CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
_X264 = {
    "x264": {"crf": "23", "preset": "medium", "threads": "1"},
    "long": {"crf": "27", "preset": "medium", "threads": "1", "x264-params": "keyint=600:scenecut=0:bframes=3"},
}

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Truth:
    """A transition: ``first`` and ``last`` of its pairs; the frames between are neither shot's.

    Attributes:
        kind: "cut", "similar" (a cut within one scene), "dissolve" or "fade".
    """

    kind: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Film:
    """A film of the corpus and the truth about it.

    Attributes:
        cast: "natural" (a clip as it is), "real", "backlot" or "mixed".
        ignored: pairs (first, last) of fades at the ends of the film: a detection there is neither right nor wrong.
        effects: what happens in its shots.
    """

    name: str
    split: str
    cast: str
    path: Path
    num_frames: int
    truths: tuple[Truth, ...]
    ignored: tuple[tuple[int, int], ...]
    effects: tuple[str, ...]


def build(folder: Path, split: str, *, manifest: Path = MANIFEST, limit: int | None = None) -> list[Film]:
    """Write the films of a split into ``folder``, unless they lie there already, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [film for film in json.loads(manifest.read_text())["films"] if film["split"] == split]
    return [_natural(film, folder) if "natural" in film else medley(film, folder) for film in chosen[:limit]]


def compose(film: dict[str, Any]) -> tuple[Pixels, list[Truth], list[tuple[int, int]]]:
    """Frames of a medley, its transitions, and the pairs to be ignored."""
    shots = [_shot(part, (film["seed"], number)) for number, part in enumerate(film["parts"])]
    frames, truths = [shots[0]], []
    for join, shot in zip(film["joins"], shots[1:], strict=True):
        last_pure, rest = _joined(frames, shot, join)
        shown = sum(map(len, frames))
        frames.append(rest)
        truths.append(Truth("similar" if join.get("similar") else join["kind"], last_pure, shown - 1))
    whole = np.concatenate(frames)
    ignored = []
    if film["fades_in"]:
        whole[:10] = shot_effects.faded(whole[:10], 0, out=False)
        ignored.append((0, 9))
    if film["fades_out"]:
        whole[-10:] = shot_effects.faded(whole[-10:], 0, out=True)
        ignored.append((len(whole) - 11, len(whole) - 2))
    return whole, truths, ignored


def _joined(frames: list[Pixels], shot: Pixels, join: dict[str, Any]) -> tuple[int, Pixels]:
    """Join a shot to what is there: the last frame of the shot before alone, and what is left of the new one."""
    if join["kind"] == "dissolve":
        length = join["frames"]
        mixed = shot_effects.dissolved(frames[-1][-length:], shot[:length], eased=join["eased"])
        frames[-1] = np.concatenate([frames[-1][:-length], mixed])
        return sum(map(len, frames)) - length - 1, shot[length:]
    if join["kind"] == "fade":
        out, back, level = join["out"], join["in"], join["level"]
        left, right = frames[-1], shot.copy()
        plain = np.full((join["held"], *shot.shape[1:]), level, np.uint8)
        leaves = shot_effects.faded(left[-out:], level, out=True)
        comes = shot_effects.faded(right[:back], level, out=False)
        frames[-1] = np.concatenate([left[:-out], leaves, plain, comes])
        return sum(map(len, frames)) - out - join["held"] - back - 1, right[back:]
    return sum(map(len, frames)) - 1, shot


def _shot(part: dict[str, Any], seed: tuple[int, int]) -> Pixels:
    effect, draw = part["effect"], np.random.default_rng(seed)
    wide = effect in shot_effects.WIDE | shot_effects.STEADY
    if part["source"] == "backlot":
        frames = backlot(part["seed"], part["frames"], part["look"], wide=wide)
    elif part["source"] == "slides":
        frames = slide(part["seed"], part["number"], part["frames"], wide=wide)
    elif part["source"] == "leaves":
        frames = leaves(part["seed"], part["frames"], wide=wide)
    else:
        frames = real(CLIPS, part["source"], part["start"], part["frames"], part["look"], wide=wide)
    change = (shot_effects.WIDE | shot_effects.STEADY | shot_effects.PLAIN).get(effect)
    return change(frames, draw) if change else frames


def medley(film: dict[str, Any], folder: Path) -> Film:
    """Write one composed film, unless it lies there already."""
    path, told = folder / f"{film['name']}.mp4", folder / f"{film['name']}.json"
    if not told.exists():
        frames, truths, ignored = compose(film)
        _write(path, frames, film["encoding"])
        told.write_text(json.dumps([len(frames), [dataclasses.astuple(truth) for truth in truths], ignored]))
    num_frames, truths, ignored = json.loads(told.read_text())
    return Film(
        name=film["name"],
        split=film["split"],
        cast=film["cast"],
        path=path,
        num_frames=num_frames,
        truths=tuple(Truth(*truth) for truth in truths),
        ignored=tuple((first, last) for first, last in ignored),
        effects=tuple(part["effect"] for part in film["parts"]),
    )


def _natural(film: dict[str, Any], folder: Path) -> Film:
    known = film["natural"]
    path = folder / f"{film['name']}.mp4"
    if not path.exists():
        _copy_stream(CLIPS / f"{known['source']}.mp4", path, STREAMS.get(known["source"], 0))
    with av.open(str(path)) as container:
        num_frames = sum(1 for packet in container.demux(video=0) if packet.size)
    return Film(
        name=film["name"],
        split=film["split"],
        cast="natural",
        path=path,
        num_frames=num_frames,
        truths=tuple(Truth(*truth) for truth in known["transitions"]),
        ignored=tuple((first, last) for first, last in known["ignored"]),
        effects=(),
    )


def _write(path: Path, frames: Pixels, encoding: str) -> None:
    if encoding == "telecine":
        write_mp4(path, frames, FPS)
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_X264[encoding])
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def _copy_stream(source: Path, target: Path, number: int) -> None:
    """One video stream of a file in a file of its own, packet by packet, so that every detector sees the same."""
    with av.open(str(source)) as taken, av.open(str(target), "w") as given:
        stream = taken.streams.video[number]
        copy = given.add_stream_from_template(stream)
        for packet in taken.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                given.mux(packet)
