"""Many tiny films that differ, made in seconds, and some files that are none."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine_components.media.encode import write_mp4

NUM_FRAMES, FPS, WIDTH_PX, HEIGHT_PX = 30, 24.0, 96, 72
NUM_DISCS, RADIUS_PX, STEP_PX = 12, 7, 2
BAD_EVERY = 25
"""Each file of that number is cut off in its middle."""

Picture = npt.NDArray[np.float64]


def write_films(folder: Path, numbers: range) -> None:
    """Write ``film_<number>.mp4`` for each number: a disc crosses a still picture of its own."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        write_film(folder, number, seed=number)


def write_film(folder: Path, number: int, *, seed: int) -> None:
    """Write one film; another seed gives another one of the same name."""
    draw = np.random.default_rng(seed)
    still: Picture = np.full((HEIGHT_PX, WIDTH_PX, 3), draw.uniform(60, 160, 3))
    for _ in range(NUM_DISCS):
        across, down = draw.uniform(0, WIDTH_PX), draw.uniform(0, HEIGHT_PX)
        still = _with_disc(still, across, down, draw.uniform(4, 12), draw.uniform(0, 255, 3))
    colour = draw.uniform(0, 255, 3)
    places = (12 + STEP_PX * index for index in range(NUM_FRAMES))
    frames = [_with_disc(still, across, HEIGHT_PX / 2, RADIUS_PX, colour) for across in places]
    path = folder / f"film_{number:04d}.mp4"
    write_mp4(path, np.stack(frames).astype(np.uint8), FPS)
    if number % BAD_EVERY == BAD_EVERY - 1:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _with_disc(picture: Picture, across: float, down: float, radius_px: float, colour: Picture) -> Picture:
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    inside = np.clip(radius_px - np.hypot(y - down, x - across), 0, 1)[..., None]
    drawn: Picture = picture + inside * (colour - picture)
    return drawn
