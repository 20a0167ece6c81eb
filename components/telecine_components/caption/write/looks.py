"""One look at each video: its clips' captions by signals, and the pictures that a language model is to be shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from telecine.context import Folder, Source
from telecine.errors import BadData, InputError
from telecine.reading import is_sha256
from telecine_components.caption.write import signals
from telecine_components.caption.write.frames import Pixels, Series, evenly, frame_s, pictures
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
        told: dict[str, Any] = {}
        with alive.at_hand(self.videos, {source.name: source.given["mark"]}) as folder:
            path = folder / source.name
            check_unchanged(source.name, self.videos.digest(path), source.given["rows"][0]["source_digest"])
            wanted = [(clip, self.series(clip)) for clip in source.given["rows"]]
            try:
                for (clip, _), seen in zip(wanted, pictures(path, wanted), strict=True):
                    told[clip["clip_id"]] = (
                        self.see(clip, seen, out_dir) if all(seen) else {"reason": _nothing_at(clip)}
                    )
            except BadData as bad:
                told = {clip["clip_id"]: {"reason": bad.reason} for clip, _ in wanted} | told
        return {"clips": told}

    def series(self, clip: Row) -> list[Series]:
        """The pictures to take of a clip."""
        return [signals.series(clip)]

    def see(self, clip: Row, seen: Sequence[Sequence[Pixels]], out_dir: Path) -> dict[str, Any]:
        """``parts``, the caption."""
        return {"parts": signals.described(seen[0], clip)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookWithPictures(Look):
    """Takes pictures of each window of a clip too; ``params`` say how many of which size."""

    def series(self, clip: Row) -> list[Series]:
        """Those of signals, and those of each window."""
        side_px, num = self.params["frame_side_px"], self.params["num_frames"]
        return [
            *super().series(clip),
            *(Series(evenly(num, *_span_s(clip, span)), side_px) for span in self._windows(clip)),
        ]

    def see(self, clip: Row, seen: Sequence[Sequence[Pixels]], out_dir: Path) -> dict[str, Any]:
        """``parts``, and ``windows`` with ``duration_s`` and ``pictures``, names of JPEG files."""
        taken = []
        for span, found in zip(self._windows(clip), seen[1:], strict=True):
            start_s, end_s = _span_s(clip, span)
            names = [f"{clip['clip_id']}_{span[0]}_{number}.jpg" for number in range(len(found))]
            for name, picture in zip(names, found, strict=True):
                (out_dir / name).write_bytes(_jpeg(picture))
            taken.append({"duration_s": round(end_s - start_s, 3), "pictures": names})
        return super().see(clip, seen, out_dir) | {"windows": taken}

    def _windows(self, clip: Row) -> list[tuple[int, int]]:
        return windows(clip["num_frames"], self.params["window_frames"], self.params["min_window_frames"])


def _span_s(clip: Row, span: tuple[int, int]) -> tuple[float, float]:
    """Of a window, since the clip's begin."""
    return span[0] * frame_s(clip), span[1] * frame_s(clip)


def _nothing_at(clip: Row) -> str:
    return f"no frame between {clip['start_s']:.2f} and {clip['end_s']:.2f} s"


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
