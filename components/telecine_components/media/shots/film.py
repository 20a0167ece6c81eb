"""The shots of a video file, where nothing else is wanted of it."""

import dataclasses
from pathlib import Path

from telecine_components.media.decode import open_video
from telecine_components.media.glance import glance_of
from telecine_components.media.planes import planes_of
from telecine_components.media.shots.finder import Rule, ShotFinder
from telecine_components.media.shots.shot import Shot, Transition


@dataclasses.dataclass(frozen=True)
class FilmShots:
    """What was found in a file, in its order."""

    transitions: list[Transition]
    shots: list[Shot]


def film_of(path: Path, rule: Rule | None = None) -> FilmShots:
    """Decode a file once, without deblocking, and find its shots.

    Frames are shrunk so much that blocks do not show: on the shot corpus hard cuts are where full decoding finds them,
    and the ends of dissolves and fades differ by a few frames (docs/shots.md).

    Raises:
        BadData: it cannot be decoded to its end.
    """
    finder = ShotFinder(rule)
    with open_video(path, deblock=False) as video:
        for index, (time_s, frame) in enumerate(video.frames()):
            finder.look_at(glance_of(planes_of(frame, video.orientation), index, time_s))
    return FilmShots(finder.transitions(), finder.shots())
