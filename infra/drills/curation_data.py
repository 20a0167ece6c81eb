"""Many tiny films that differ, made in seconds, and some files that are none."""

from pathlib import Path

import numpy as np

from telecine_components.media.encode import write_mp4

NUM_FRAMES, FPS, WIDTH_PX, HEIGHT_PX = 30, 24.0, 96, 72
NUM_DISCS = 24
BAD_EVERY = 25
"""Each file of that number is cut off in its middle."""


def write_films(folder: Path, numbers: range) -> None:
    """Write ``film_<number>.mp4`` for each number: discs of its own that slide by its own speed."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        write_film(folder, number, seed=number)


def write_film(folder: Path, number: int, *, seed: int) -> None:
    """Write one film; another seed gives another one of the same name."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    wide = np.full((HEIGHT_PX, WIDTH_PX, 3), draw.uniform(60, 130, 3))
    for _ in range(NUM_DISCS):
        place = draw.uniform(0, 1, 2) * (HEIGHT_PX, WIDTH_PX)
        inside = np.clip(draw.uniform(4, 9) - np.hypot(y - place[0], x - place[1]), 0, 1)[..., None]
        wide += inside * (draw.uniform(0, 255, 3) - wide)
    speed_px = int(draw.integers(1, 4))
    frames = np.stack([np.roll(wide.astype(np.uint8), speed_px * index, axis=1) for index in range(NUM_FRAMES)])
    path = folder / f"film_{number:04d}.mp4"
    write_mp4(path, frames, FPS)
    if number % BAD_EVERY == BAD_EVERY - 1:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
