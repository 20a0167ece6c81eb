import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from telecine_components.media.decode import open_video

SMALL = {"num_films": 2, "num_frames": 24, "fps": 12, "width_px": 64, "height_px": 48}


def _videos(outputs: Any) -> Path:
    return Path(outputs.videos_uri.removeprefix("file://"))


def test_films_come_with_the_truth_about_them(run_component: Callable[..., Any]) -> None:
    folder = _videos(run_component("backlot.render", **SMALL))
    assert sorted(path.name for path in folder.iterdir()) == [
        "film_0001.json",
        "film_0001.mp4",
        "film_0002.json",
        "film_0002.mp4",
    ]
    truth = json.loads((folder / "film_0002.json").read_text())
    with open_video(folder / "film_0002.mp4") as video:
        assert sum(1 for _ in video.frames()) == truth["shots"][-1]["end_frame"] == 24
    assert (truth["width"], truth["height"], truth["seed"]) == (64, 48, 1)


def test_equal_inputs_give_equal_bytes(run_component: Callable[..., Any]) -> None:
    first = {path.name: path.read_bytes() for path in _videos(run_component("backlot.render", **SMALL)).iterdir()}
    again = _videos(run_component("backlot.render", **SMALL, force=True))
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first


def test_a_longer_list_starts_with_the_shorter_one(run_component: Callable[..., Any]) -> None:
    short = _videos(run_component("backlot.render", **SMALL))
    long = _videos(run_component("backlot.render", **(SMALL | {"num_films": 3})))
    for path in short.iterdir():
        assert (long / path.name).read_bytes() == path.read_bytes()
