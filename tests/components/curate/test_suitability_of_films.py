"""The built-in model and the filter's thresholds on films that went through encoding and curate.split's pass."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.curate.filter.funnel import first_reason
from telecine_components.curate.filter.spec import Inputs
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.suitability import builtin
from telecine_components.curate.suitability.model import from_json
from telecine_components.media import clips
from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.shots.shot import NO_DOUBT
from telecine_models.backlot import clip
from telecine_models.backlot.defects import GRADED_DEFECTS, spoil

Pixels = npt.NDArray[np.uint8]
Measured = Callable[[Pixels], dict[str, Any]]
FPS, NUM_FRAMES = 12, 24
LIMITS = Inputs(clips_uri="unused")


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """The row of a film in the manifest, scored by the built-in model."""
    model = from_json(builtin.MODEL, owner="test", known=clips.SCHEMA.names)

    def measure(frames: Pixels) -> dict[str, Any]:
        write_mp4(tmp_path / "film.mp4", frames, FPS)
        found = analyse(tmp_path / "film.mp4", detector="telecine")
        facts = {name: getattr(found, name) for name in ("fps", "width_px", "height_px", "bits_per_pixel")}
        facts |= {"start_s": 0.0, "end_s": float(found.edges_s[-1]), "cut_doubt": NO_DOUBT}
        row = facts | found.meter.clip(0, len(frames))
        return row | {"clip_id": "0", "source": "film.mp4", "suitability": model.score(row)}

    return measure


@pytest.fixture(scope="module")
def footage(real_clips: Path) -> dict[str, Pixels]:
    """The beginning of real clips, every second frame."""
    found = {}
    for name in ("bigbuckbunny", "carphone"):
        with open_video(real_clips / f"{name}.mp4") as video:
            frames = [frame for _, frame in itertools.islice(video.frames(), 0, 2 * NUM_FRAMES, 2)]
            small = [frame.to_ndarray(format="rgb24", width=320, height=180) for frame in frames]
            found[name] = np.stack(small).astype(np.uint8)
    return found


@pytest.mark.parametrize("kind", GRADED_DEFECTS)
def test_any_defect_lowers_the_score_of_real_footage(kind: Any, footage: dict[str, Pixels], measured: Measured) -> None:
    for frames in footage.values():
        clean = measured(frames)["suitability"]
        assert measured(spoil(frames, kind, 0.7, 0))["suitability"] < clean - 0.2


def test_clean_footage_passes_every_default(footage: dict[str, Pixels], measured: Measured) -> None:
    films = [clip(seed, num_frames=NUM_FRAMES, fps=FPS, width_px=160, height_px=120, style=None) for seed in range(4)]
    rows = [measured(film.frames) for film in films]
    rows += [measured(frames) for frames in footage.values()]
    assert [first_reason(row, LIMITS) for row in rows] == [None] * 6
    assert min(row["suitability"] for row in rows) > 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("noise", "too_noisy"),
        ("overexposure", "too_bright"),
        ("underexposure", "too_dark"),
        ("freeze", "frozen"),
        ("text", "overlaid"),
        ("shake", "shaky"),
    ],
)
def test_what_is_ruined_is_rejected_for_its_own_reason(kind: Any, reason: str, measured: Measured) -> None:
    film = clip(1, num_frames=NUM_FRAMES, fps=FPS, width_px=160, height_px=120)
    assert first_reason(measured(spoil(film.frames, kind, 1.0, 0)), LIMITS) == reason
