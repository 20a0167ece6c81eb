"""Which files of a folder are videos."""

from pathlib import Path

from telecine.errors import InputError
from telecine.work.digests import files_below

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
    try:
        files = [path for path in files_below(folder) if path.suffix.lower() in VIDEO_SUFFIXES]
    except PermissionError as error:
        raise InputError(f"curate.split: {error.filename} cannot be read; allow reading it") from None
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not files:
        known = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES))
        raise InputError(f"curate.split: no videos in {folder}; put files ending in one of ({known}) there")
    return sorted(path.relative_to(folder).as_posix() for path in files)
