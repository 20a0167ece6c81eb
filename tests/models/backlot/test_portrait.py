"""Reference images show a look alone, and the look that the clip shows."""

import numpy as np
import pytest

from telecine_models.backlot import clip
from telecine_models.backlot.portrait import portrait
from telecine_models.backlot.scene import COLOURS, SHAPES
from telecine_models.backlot.world import PATTERNS, Look

AREAS = {"circle": np.pi, "square": 2.0, "triangle": 0.75 * 3**0.5}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_has_the_area_of_the_shape_and_nothing_is_outside_it(shape: str) -> None:
    drawn = portrait(Look(shape=shape, colour="red", pattern="plain"), 96)
    assert drawn.mask.sum() == pytest.approx(AREAS[shape] * (0.42 * 96) ** 2, rel=0.04)
    near = np.logical_or.reduce(
        [np.roll(drawn.mask, (down, right), (0, 1)) for down in (-2, -1, 0, 1, 2) for right in (-2, -1, 0, 1, 2)]
    )
    assert (drawn.rgb[~near] == 200).all()
    assert np.abs(drawn.rgb[drawn.mask].mean(axis=0) - COLOURS["red"]).max() < 30


def test_every_look_has_a_portrait_of_its_own() -> None:
    looks = [Look(shape=s, colour=c, pattern=p) for s in SHAPES for c in COLOURS for p in PATTERNS]
    assert len({portrait(look, 32).rgb.tobytes() for look in looks}) == len(looks) == 120


def test_a_clip_gives_one_reference_for_each_part_in_the_colours_that_it_shows() -> None:
    for seed in range(8):
        film = clip(seed, num_frames=2, fps=8, width_px=160, height_px=120, camera="static")
        references = film.references(64)
        assert len(references) == len(film.truth["parts"])
        for part, reference in zip(film.truth["parts"], references, strict=True):
            mask = film.masks[part["members"][0], 0]
            shown = film.frames[0][mask].mean(axis=0)
            assert np.abs(reference.rgb[reference.mask].mean(axis=0) - shown).max() < 25


def test_a_side_too_short_to_draw_on_is_refused() -> None:
    with pytest.raises(ValueError, match="side_px must be at least 8, got 7"):
        portrait(Look(shape="circle", colour="red", pattern="plain"), 7)
