"""Captions read back say what the scene that wrote them holds."""

import numpy as np
import pytest

from telecine_models.backlot.caption import draw_captions, is_held_out, parse
from telecine_models.backlot.scene import Stage, compose

STAGE = Stage(width_px=160, height_px=120, fps=12)
SCENES = [compose(np.random.default_rng(seed), STAGE, 30, moving=seed % 5 != 0) for seed in range(300)]


def test_every_caption_that_a_scene_writes_is_read_as_that_scene() -> None:
    for scene in SCENES:
        read = parse(scene.caption)
        assert (read.background, read.texture, read.pan) == (
            scene.backdrop.colour,
            scene.backdrop.texture,
            scene.backdrop.pan,
        )
        assert [(s.count, s.size, s.colour, s.shape, s.motion) for s in read.subjects] == [
            (g.count, g.size, g.colour, g.shape, g.motion) for g in scene.groups
        ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog runs on a beach",
        "a red circle moves left",
        "a red circle moves left on a blue background while it rains",
        "four red circles move left on a blue background",
        "two red circle moves left on a blue background",
        "a red circle moves around on a blue background",
        "a red circle moves left on a mauve background",
        "A red circle moves left on a blue background.",
    ],
)
def test_what_is_no_caption_of_backlot_is_refused_with_the_text_in_the_message(text: str) -> None:
    with pytest.raises(ValueError, match="expected Backlot's") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


def test_captions_to_train_on_and_held_out_ones_never_meet() -> None:
    seen, held = (set(draw_captions(200, seed=(4,), held_out=side)) for side in (False, True))
    assert len(seen) == len(held) == 200
    assert not seen & held
    assert all(is_held_out(caption) for caption in held)
    assert draw_captions(200, seed=(4,), held_out=True) == draw_captions(200, seed=(4,), held_out=True)
    assert set(draw_captions(50, seed=(4, 1), held_out=False)) != set(draw_captions(50, seed=(4, 2), held_out=False))
