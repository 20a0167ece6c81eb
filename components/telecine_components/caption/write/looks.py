"""One look at each video: its clips' captions by signals, and the pictures that a language model is to be shown."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from telecine.context import Folder, Source
from telecine.errors import BadData, InputError
from telecine.reading import is_sha256
from telecine_components.caption.write import signals
from telecine_components.caption.write.frames import Pixels, evenly, frame_s, pictures
from telecine_components.caption.write.windows import windows
from telecine_components.stages import alive
from telecine_components.stages.stage import Stage

OWNER = "caption.write"
JPEG_QUALITY = 90

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look(Stage):
    """Captions one video's clips by what can be measured.

    A source's ``given`` has ``rows`` of its clips and ``mark``, the digest that the folder tells of the video.
    """

    videos: Folder

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        """``clips``: for each by its id what :meth:`see` says, or ``reason`` why it could not be looked at."""
        seen: dict[str, Any] = {}
        with alive.at_hand(self.videos, {source.name: source.given["mark"]}) as folder:
            path = folder / source.name
            check_unchanged(source.name, self.videos.digest(path), source.given["rows"][0]["source_digest"])
            for clip in source.given["rows"]:
                alive.beat()
                try:
                    seen[clip["clip_id"]] = self.see(path, clip, out_dir)
                except BadData as bad:
                    seen[clip["clip_id"]] = {"reason": bad.reason}
        return {"clips": seen}

    def see(self, path: Path, clip: Row, out_dir: Path) -> dict[str, Any]:
        """``parts``, the caption."""
        return {"parts": signals.caption(path, clip)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookWithPictures(Look):
    """Takes pictures of each window of a clip too; ``params`` say how many of which size."""

    def see(self, path: Path, clip: Row, out_dir: Path) -> dict[str, Any]:
        """``parts``, and ``windows`` with ``duration_s`` and ``pictures``, names of JPEG files."""
        spans = windows(clip["num_frames"], self.params["window_frames"], self.params["min_window_frames"])
        taken = [self._window(path, clip, span, out_dir) for span in spans]
        return super().see(path, clip, out_dir) | {"windows": taken}

    def _window(self, path: Path, clip: Row, span: tuple[int, int], out_dir: Path) -> dict[str, Any]:
        start_s, end_s = (place * frame_s(clip) for place in span)
        times_s = evenly(self.params["num_frames"], start_s, end_s)
        names: list[str] = []
        for picture in pictures(path, clip, times_s, side_px=self.params["frame_side_px"]):
            names.append(f"{clip['clip_id']}_{span[0]}_{len(names)}.jpg")
            (out_dir / names[-1]).write_bytes(_jpeg(picture))
        return {"duration_s": round(end_s - start_s, 3), "pictures": names}


def check_unchanged(name: str, found: str | None, digest: str) -> None:
    """Compare digests of a video; the mark of an object that was not read says nothing.

    Raises:
        InputError: it is missing, or not the one that its clips were found in.
    """
    if found is None or (is_sha256(found) and found != digest):
        state = "differs from" if found else "is missing from"
        raise InputError(
            f"{OWNER}: {name} {state} what clips_uri describes; give the same videos_uri to curate.split and {OWNER}, "
            "and run curate.split again where videos changed"
        )


def _jpeg(picture: Pixels) -> bytes:
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return bytes(data)
