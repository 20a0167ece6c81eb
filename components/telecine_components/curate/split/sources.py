"""Which files of a folder are videos."""

import os
from pathlib import Path

from telecine.errors import InputError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"})


def find_videos(folder: Path) -> list[str]:
    """Paths below ``folder`` of all files with a video suffix, with slashes, sorted.

    Raises:
        InputError: missing, not a folder, unreadable, or without a video.
    """
    if not folder.exists():
        raise InputError(f"curate.split: videos_uri must be a folder of videos; {folder} does not exist")
    if not folder.is_dir():
        raise InputError(f"curate.split: videos_uri must be a folder of videos; {folder} is a file, give its folder")
    files = [path for path in _walk(folder) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not files:
        known = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES))
        raise InputError(f"curate.split: no videos in {folder}; put files ending in one of ({known}) there")
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"curate.split: {error.filename} cannot be read: {error.strerror}; allow reading it") from None

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return found
