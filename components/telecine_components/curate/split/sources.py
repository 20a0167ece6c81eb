"""Which files of a folder are videos."""

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from telecine.errors import InputError
from telecine.reading import Folder

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "f4v"),
        *("mkv", "mk3d", "webm", "avi", "flv", "wmv", "asf", "ogv", "mxf", "dv", "gif", "ivf", "nut"),
        *("ts", "mts", "m2ts", "mpg", "mpeg", "m2p", "vob", "m1v", "m2v"),
        *("h264", "264", "h265", "265", "hevc"),
    )
)
"""Of what :data:`telecine_components.media.decode.CONTAINERS` opens. What is named otherwise and does not begin like a
video has no row at all."""
_TS_PACKET = 188


def digests_of(videos: Folder) -> dict[str, str]:
    """Digest of each file of the folder by its path below it.

    Raises:
        InputError: missing, not a folder, or unreadable.
    """
    try:
        return videos.digests()
    except FileNotFoundError:
        raise InputError(f"curate.split: videos_uri must be a folder of videos; {videos.uri} does not exist") from None
    except NotADirectoryError:
        raise InputError(
            f"curate.split: videos_uri must be a folder of videos; {videos.uri} is a file, give its folder"
        ) from None
    except PermissionError as error:
        raise InputError(f"curate.split: {error.filename} cannot be read; allow reading it") from None


def find_videos(videos: Folder, names: Iterable[str]) -> list[str]:
    """Those of the paths below the folder that are named like a video, or lie on this machine and begin like one,
    and are not hidden; sorted.

    Raises:
        InputError: none is.
    """
    paths = [path for path in map(PurePosixPath, names) if not any(part.startswith(".") for part in path.parts)]
    found = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES or _begins_like_a_video(videos, path)]
    if not found:
        known = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES))
        raise InputError(f"curate.split: no videos in {videos.uri}; put files ending in one of ({known}) there")
    return sorted(map(str, found))


def _begins_like_a_video(videos: Folder, path: PurePosixPath) -> bool:
    """Whether a file starts as MP4, Matroska, AVI, FLV, MPEG or its transport stream do."""
    head = videos.beginning(str(path), _TS_PACKET + 1)
    return (
        head[4:8] == b"ftyp"
        or head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47)
    )


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; what is not comes from the system with placeholders, and no manifest takes it."""
    return name == as_text(name)


def as_text(name: str) -> str:
    """A file's name with what is not UTF-8 in it spelt out."""
    return os.fsencode(name).decode(errors="backslashreplace")
