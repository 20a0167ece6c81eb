"""What a scene says about itself is what it holds."""

import itertools
from typing import Any

import numpy as np
import pytest

from telecine_models.backlot.scene import COLOURS, Backdrop, Group, Scene, Stage, compose

STAGE = Stage(width_px=160, height_px=120, fps=12)
SCENES = [compose(np.random.default_rng(seed), STAGE, 30, moving=True) for seed in range(200)]
GROUPS = [group for scene in SCENES for group in scene.groups]


def test_all_kinds_of_everything_occur() -> None:
    assert {g.shape for g in GROUPS} == {"circle", "square", "triangle"}
    assert {g.size for g in GROUPS} == {"small", "medium", "large"}
    assert {g.motion for g in GROUPS} == {"left", "right", "up", "down", "bounce"}
    assert {g.count for g in GROUPS} == {1, 2, 3}
    assert {g.colour for g in GROUPS} == {s.backdrop.colour for s in SCENES} == set(COLOURS)
    assert {s.backdrop.pan for s in SCENES} == {None, "left", "right", "up", "down"}
    assert {len(s.groups) for s in SCENES} == {1, 2}


def test_objects_stay_in_the_frame_and_never_touch() -> None:
    for scene in SCENES:
        discs = [(center, group.radius_px) for group in scene.groups for center in group.centers_px]
        for center, radius in discs:
            assert center.shape == (30, 2)
            assert (center >= radius - 1e-6).all()
            assert (center <= np.array((160, 120)) - radius + 1e-6).all()
        for (one, radius), (other, other_radius) in itertools.combinations(discs, 2):
            assert (np.linalg.norm(one - other, axis=1) > radius + other_radius).all()


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_objects_move_where_they_are_said_to_move_and_as_fast(motion: str, axis: int, sign: int) -> None:
    for group in (g for g in GROUPS if g.motion == motion):
        step = np.diff(group.centers_px, axis=1)
        np.testing.assert_allclose(step[..., axis], sign * group.speed_px_per_s / 12, rtol=1e-9)
        np.testing.assert_allclose(step[..., 1 - axis], 0, atol=1e-9)


def turns(group: Group) -> np.ndarray:
    """How often each object changes its direction along either axis."""
    turned: np.ndarray = (np.diff(np.sign(np.diff(group.centers_px, axis=1)), axis=1) != 0).sum(axis=(1, 2))
    return turned


def test_what_bounces_meets_an_edge_at_least_once() -> None:
    assert all((turns(group) >= 1).all() for group in GROUPS if group.motion == "bounce")


def test_nothing_moves_in_a_scene_that_must_not_move() -> None:
    scene = compose(np.random.default_rng(5), STAGE, 30, moving=False)
    assert all(np.ptp(group.centers_px, axis=1).max() == 0 for group in scene.groups)
    assert scene.backdrop.pan is None
    assert "still" in scene.caption


def test_no_colour_is_used_twice_and_the_backdrop_differs_from_the_one_before() -> None:
    for scene in SCENES:
        used = [scene.backdrop.colour, *(group.colour for group in scene.groups)]
        assert len(set(used)) == len(used)
        again = compose(np.random.default_rng(0), STAGE, 30, moving=True, unlike=scene.backdrop.colour)
        assert again.backdrop.colour != scene.backdrop.colour


def group(count: int, size: Any, colour: str, shape: Any, motion: Any) -> Group:
    centers = np.zeros((count, 1, 2))
    return Group(
        shape=shape, colour=colour, size=size, radius_px=9.0, motion=motion, speed_px_per_s=0.0, centers_px=centers
    )


@pytest.mark.parametrize(
    ("groups", "ground", "caption"),
    [
        (
            [(2, "medium", "red", "circle", "left")],
            ("plain", "blue", None),
            "two red circles move left on a blue background",
        ),
        (
            [(1, "medium", "orange", "square", "up")],
            ("plain", "orange", None),
            "an orange square moves up on an orange background",
        ),
        (
            [(1, "large", "pink", "triangle", "still"), (3, "small", "cyan", "square", "bounce")],
            ("striped", "orange", "right"),
            "a large pink triangle stays still and three small cyan squares bounce around"
            " on a striped orange background while the camera pans right",
        ),
    ],
)
def test_captions_read_as_sentences(
    groups: list[tuple[int, str, str, str, str]], ground: tuple[Any, str, Any], caption: str
) -> None:
    texture, colour, pan = ground
    backdrop = Backdrop(colour=colour, texture=texture, pan=pan, pan_px_per_s=0.0, texture_seed=0)
    made = tuple(group(*parts) for parts in groups)
    assert Scene(stage=STAGE, num_frames=1, groups=made, backdrop=backdrop).caption == caption


def test_the_caption_names_every_part() -> None:
    for scene in SCENES:
        assert f"{scene.backdrop.colour} background" in scene.caption
        assert ("while the camera pans" in scene.caption) == (scene.backdrop.pan is not None)
        assert all(phrase_of(group) in scene.caption for group in scene.groups)
        assert len(scene.caption.split()) <= 32


def phrase_of(group: Group) -> str:
    verb = {"bounce": "bounce{} around"}.get(group.motion, f"move{{}} {group.motion}")
    if group.count == 1:
        return f"{group.colour} {group.shape} {verb.format('s')}"
    return f"{group.colour} {group.shape}s {verb.format('')}"


def test_scene_of_one_frame_on_the_smallest_stage() -> None:
    stage = Stage(width_px=16, height_px=16, fps=1)
    for seed in range(50):
        scene = compose(np.random.default_rng(seed), stage, 1, moving=True)
        assert isinstance(scene, Scene)
        assert all(np.isfinite(group.centers_px).all() for group in scene.groups)
