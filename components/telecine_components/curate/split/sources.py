"""Which files of a folder are videos."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from telecine.errors import InputError
from telecine.reading import Folder

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"})


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


def find_videos(names: Iterable[str], uri: str) -> list[str]:
    """Those of the paths below ``uri`` that have a video suffix and are not hidden, sorted.

    Raises:
        InputError: none is.
    """
    paths = [PurePosixPath(name) for name in names]
    found = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    if not found:
        known = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES))
        raise InputError(f"curate.split: no videos in {uri}; put files ending in one of ({known}) there")
    return sorted(map(str, found))
