"""From one video and the windows wanted of it to a shard: a single pass that keeps only the frames asked for."""

import collections
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.curate.encode.spec import Inputs
from telecine_components.curate.encode.windows import Window
from telecine_components.media.decode import Video, open_video, with_ends
from telecine_components.media.planes import planes_of, thumbnail
from telecine_components.media.shards import ShardWriter, array_bytes

Pixels = npt.NDArray[np.uint8]


def write_shard(video_path: Path, windows: Sequence[Window], inputs: Inputs, shard_path: Path) -> list[dict[str, Any]]:
    """Decode the video once and write a sample per window.

    Args:
        windows: in the order of time, without overlap.

    Returns:
        What the index needs of each sample and only the pass knows.

    Raises:
        BadData: the video cannot be decoded that far.
    """
    found = []
    with open_video(video_path, num_threads=inputs.num_threads) as video, ShardWriter(shard_path) as shard:
        for window, frames in _samples(video, windows, inputs):
            files = {
                "frames.npy": array_bytes(frames),
                "txt": window.clip["caption"].encode(),
                "json": _description(window, inputs),
            }
            member = shard.add(window.sample_id, files)["frames.npy"]
            found.append(
                {
                    "sample_id": window.sample_id,
                    "clip_id": window.clip["clip_id"],
                    "height_px": window.height_px,
                    "width_px": window.width_px,
                    "offset": member.offset,
                    "length": member.length,
                }
            )
    return found


def _samples(video: Video, windows: Sequence[Window], inputs: Inputs) -> Iterator[tuple[Window, Pixels]]:
    """For each time of each window the frame of its clip that begins nearest to it."""
    wanted = collections.deque((time_s, window) for window in windows for time_s in window.times_s)
    frames: list[Pixels] = []
    for index, (time_s, next_s, frame) in enumerate(with_ends(video.frames())):
        picture: Pixels | None = None
        while wanted and _is_nearest(index, (time_s + next_s) / 2, *wanted[0]):
            _, window = wanted.popleft()
            if picture is None:
                picture = thumbnail(planes_of(frame, video.orientation), window.width_px, window.height_px)
            frames.append(picture)
            if len(frames) == inputs.num_frames:
                yield window, np.stack(frames)
                frames = []
        if not wanted:
            return


def _is_nearest(index: int, until_s: float, wanted_s: float, window: Window) -> bool:
    """Whether a frame, to which no later one is nearer until then, is the one to take."""
    return index >= window.start_frame and (wanted_s <= until_s or index == window.end_frame - 1)


def _description(window: Window, inputs: Inputs) -> bytes:
    described = {
        "clip_id": window.clip["clip_id"],
        "source_digest": window.clip["source_digest"],
        "start_s": round(window.times_s[0], 6),
        "fps": inputs.sample_fps,
        "licence": window.clip["licence"],
        "consent": window.clip["consent"],
    }
    return json.dumps(described, sort_keys=True).encode()
