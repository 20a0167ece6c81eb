"""The renderer: colours, depth and masks are those of one and the same world."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.camera import CAMERAS, EYE_HEIGHT_M, Camera, Views, draw_move, move_views, project
from telecine_models.backlot.lens import shoot
from telecine_models.backlot.scene import Stage
from telecine_models.backlot.styles import studio
from telecine_models.backlot.world import Look, Thing, World, thing

WIDTH, HEIGHT = 160, 120
STAGE = Stage(width_px=WIDTH, height_px=HEIGHT, fps=12)
ROOM_M = 8.0


@functools.cache
def filmed(seed: int, camera: Camera) -> Clip:
    return clip(seed, num_frames=5, fps=4, width_px=WIDTH, height_px=HEIGHT, camera=camera)


def every_move() -> list[Clip]:
    """Three seeds by all moves, in the order of the moves."""
    return [filmed(seed, camera) for seed, camera in itertools.product(range(3), CAMERAS)]


def unproject(depth: np.ndarray, pose: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Points of the world [H, W, 3] that lie at the centres of the pixels of one frame."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.stack((columns, rows, np.ones_like(rows)), axis=-1)
    return (depth[..., None] * (pixels @ np.linalg.inv(lens).T) - pose[:, 3]) @ pose[:, :3]


def places(film: Clip, frame: int) -> np.ndarray:
    return unproject(film.depth[frame], film.poses[frame], film.intrinsics[frame])


def world(*things: Thing, num_frames: int = 1) -> World:
    room = studio(np.random.default_rng(0), "blue", "checkered").room
    return World(stage=STAGE, num_frames=num_frames, room=room, things=things, parts=())


def card(x: float, y: float, z: float, radius_m: float = 0.3, num_frames: int = 1) -> Thing:
    look = Look(shape="square", colour="red", pattern="plain")
    return thing(look, radius_m, np.tile((x, y, z), (num_frames, 1)))


def whole(film: Clip) -> list[tuple[int, int]]:
    """Objects and frames in which they are seen from edge to edge."""
    return [
        (index, frame)
        for index, each in enumerate(film.truth["objects"])
        for frame, (box, ratio) in enumerate(zip(each["boxes_px"], each["visible_ratio"], strict=True))
        if box and ratio == 1 and min(box[:2]) > 0 and box[2] < WIDTH and box[3] < HEIGHT
    ]


def middle(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean() + 0.5), float(rows.mean() + 0.5)


def outline(shape: str, radius: float) -> np.ndarray:
    """Corners [K, 2] to the right and down of the centre."""
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * radius * 0.5**0.5
    num = 3 if shape == "triangle" else 180
    angles = np.arange(num) * 2 * np.pi / num - np.pi / 2
    return radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)


def area_and_centroid(corners: np.ndarray) -> tuple[float, np.ndarray]:
    """Of a polygon [K, 2], by the shoelace formula."""
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    return float(cross.sum() / 2), ((corners + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def test_the_centre_of_an_object_is_the_middle_of_its_mask_while_the_camera_faces_its_card() -> None:
    measured = [
        np.abs(np.array(middle(film.masks[index, frame])) - film.truth["objects"][index]["centers_px"][frame]).max()
        for film, camera in zip(every_move(), CAMERAS * 3, strict=True)
        if camera.split()[0] in ("static", "roll", "zoom", "dolly", "truck")
        for index, frame in whole(film)
    ]
    assert len(measured) > 150
    assert max(measured) <= 0.502


def test_every_mask_has_the_area_and_the_middle_of_the_projected_outline() -> None:
    turned = [
        clip(seed, num_frames=9, fps=4, width_px=WIDTH, height_px=HEIGHT, actions="random", style="open world")
        for seed in range(4)
    ]
    num = {"facing": 0, "turned": 0}
    for film in [*every_move(), *turned]:
        views = Views(film.poses, film.intrinsics)
        for index, frame in whole(film):
            each = film.truth["objects"][index]
            angle = np.radians(each["facing_deg"])
            corners = outline(each["shape"], each["radius_m"]) @ [(np.cos(angle), 0, -np.sin(angle)), (0, 1, 0)]
            places = np.repeat((corners + each["centers_m"][frame])[:, None], len(film.frames), axis=1)
            seen = project(places, views)[0][:, frame]
            area, centroid = area_and_centroid(seen)
            mask = film.masks[index, frame]
            assert np.abs(middle(mask) - centroid).max() <= 0.51
            # What is uncertain is less than half a pixel on either side of the outline.
            assert abs(mask.sum() - area) < 0.5 * np.hypot(*np.diff(seen, axis=0, append=seen[:1]).T).sum()
            num["turned" if angle else "facing"] += 1
    assert num["facing"] > 400 and num["turned"] > 30


def test_what_is_below_the_floor_or_behind_a_card_that_it_cuts_through_is_hidden() -> None:
    views = move_views(draw_move(np.random.default_rng(0), "static"), STAGE, 1, 2.0)
    sunk = shoot(world(card(0.0, 0.0, 4.0)), views)
    assert sunk.pixels[0, 0] == pytest.approx(sunk.pixels_alone[0, 0] / 2, rel=0.1)
    look = Look(shape="square", colour="red", pattern="plain")
    crossed = thing(look, 0.6, np.array([[0.0, -1.6, 3.0]]), facing_deg=45.0)
    both = shoot(world(crossed, card(0.0, -1.6, 3.0, radius_m=0.6)), views)
    # Turned to the right, its left half is the farther one.
    columns = np.nonzero(both.instances[0] == 1)[1] + 0.5 - WIDTH / 2
    assert len(columns) > 100 and (columns > 0).all()


@pytest.mark.parametrize("name", ["truck right", "dolly in", "orbit left", "pan right"])
def test_surfaces_keep_their_colours_when_they_are_seen_from_elsewhere(name: Camera) -> None:
    views = move_views(draw_move(np.random.default_rng(2), name), STAGE, 2, 2.0)
    for texture in ("checkered", "striped", "cloudy"):
        room = studio(np.random.default_rng(0), "blue", texture).room
        picture = shoot(dataclasses.replace(world(num_frames=2), room=room), views)
        points = unproject(picture.depth[1], views.poses[1], views.intrinsics[1]).reshape(-1, 1, 3)
        seen, _ = project(np.repeat(points, 2, axis=1), views)
        x, y = np.floor(seen[:, 0]).astype(int).T
        inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
        before, after = (picture.canvas[:, frame] for frame in (0, 1))
        now = after.reshape(3, -1)[:, inside]
        followed = np.abs(before[:, y[inside], x[inside]] - now).mean()
        assert followed < 0.4 * np.abs(before.reshape(3, -1)[:, inside] - now).mean()


def test_every_pixel_of_the_room_lies_on_its_floor_or_one_of_its_walls() -> None:
    for film, frame in itertools.product(every_move(), (0, 4)):
        x, y, z = np.moveaxis(places(film, frame)[film.instances[frame] == 0], -1, 0)
        off = np.min([np.abs(y), np.abs(np.abs(x) - ROOM_M), np.abs(np.abs(z) - ROOM_M)], axis=0)
        assert off.max() < 1e-3
        assert max(np.abs(x).max(), np.abs(z).max(), y.max()) < ROOM_M + 1e-3


def test_every_pixel_of_an_object_lies_on_its_card() -> None:
    for film, frame in itertools.product(every_move(), (0, 4)):
        points = places(film, frame)
        for index, each in enumerate(film.truth["objects"]):
            away = points[film.masks[index, frame]] - each["centers_m"][frame]
            if len(away):
                assert np.abs(away[:, 2]).max() < 1e-3
                assert np.hypot(away[:, 0], away[:, 1]).max() < each["radius_m"] + 1e-3


def test_masks_are_disjoint_and_are_where_the_depth_is_the_cards() -> None:
    for seed in range(8):
        film = filmed(seed, "static")
        assert (film.masks.sum(axis=0) <= 1).all()
        for index, each in enumerate(film.truth["objects"]):
            depth = np.float32(each["depths_m"][0])
            assert np.array_equal(film.masks[index], np.abs(film.depth - depth) < 1e-3)


def test_the_depths_of_wall_and_floor_are_the_known_ones() -> None:
    camera = move_views(draw_move(np.random.default_rng(0), "static"), STAGE, 1, 2.0)
    depth = shoot(world(), camera).depth[0]
    below = np.arange(HEIGHT) + 0.5 - HEIGHT / 2
    floor = np.where(below > 0, EYE_HEIGHT_M * 120 / np.maximum(below, 1e-9), np.inf)
    assert np.allclose(depth[:, WIDTH // 2], np.minimum(floor, ROOM_M), atol=1e-4)


@pytest.mark.parametrize("name", ["pan left", "tilt up", "roll clockwise", "zoom in"])
def test_a_camera_that_stays_in_place_sees_the_same_picture_through_a_homography(name: Camera) -> None:
    views = move_views(draw_move(np.random.default_rng(1), name), STAGE, 2, 2.0)
    still = [card(-0.5, -1.4, 3.0, num_frames=2), card(0.4, -1.8, 2.5, num_frames=2)]
    picture = shoot(world(*still, num_frames=2), views)
    first, last = (views.intrinsics[i] @ views.poses[i, :, :3] for i in (0, 1))
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.stack((columns, rows, np.ones_like(rows)), axis=-1) @ (first @ np.linalg.inv(last)).T
    x, y = (np.floor(pixels[..., axis] / pixels[..., 2]).astype(int) for axis in (0, 1))
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    assert inside.mean() > 0.5
    fetched = picture.instances[0][y[inside], x[inside]]
    assert (fetched == picture.instances[1][inside]).mean() > 0.99
    change = np.abs(picture.canvas[:, 0][:, y[inside], x[inside]] - picture.canvas[:, 1][:, inside]).mean()
    unmoved = np.abs(picture.canvas[:, 0] - picture.canvas[:, 1])[:, inside].mean()
    assert change < 0.45 * unmoved


def test_what_is_nearer_hides_what_is_behind_it_in_whatever_order_they_are_listed() -> None:
    near, far = card(0.0, -1.6, 2.0), card(0.3, -1.6, 3.0)
    views = move_views(draw_move(np.random.default_rng(0), "static"), STAGE, 1, 2.0)
    one, other = (shoot(world(*order), views) for order in ((near, far), (far, near)))
    assert np.array_equal(one.canvas, other.canvas)
    assert np.array_equal(one.depth, other.depth)
    assert one.pixels[0, 0] == one.pixels_alone[0, 0]
    assert 0 < one.pixels[1, 0] < one.pixels_alone[1, 0]
    assert one.pixels[1, 0] == other.pixels[0, 0] == (one.instances == 2).sum()


def test_what_is_behind_the_camera_is_not_seen_and_what_surrounds_it_does_no_harm() -> None:
    views = move_views(draw_move(np.random.default_rng(0), "static"), STAGE, 1, 2.0)
    behind = shoot(world(card(0.0, -1.6, -3.0), card(0.1, -1.6, 0.0), card(0.0, -1.6, 0.02)), views)
    assert behind.pixels.sum() == 0
    assert np.array_equal(behind.canvas, shoot(world(), views).canvas)


def test_boxes_are_the_bounds_of_the_masks() -> None:
    for film in every_move():
        for mask, each in zip(film.masks, film.truth["objects"], strict=True):
            for frame, box in enumerate(each["boxes_px"]):
                rows, columns = np.flatnonzero(mask[frame].any(axis=1)), np.flatnonzero(mask[frame].any(axis=0))
                bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else None
                assert box == bounds
                assert each["pixels"][frame] == mask[frame].sum()


def test_frames_drawn_a_few_at_a_time_are_those_drawn_alone() -> None:
    long = clip(4, num_frames=24, fps=12, width_px=WIDTH, height_px=HEIGHT, camera="orbit left")
    views = long.poses, long.intrinsics
    assert len(np.unique(views[0], axis=0)) == 24
    for frame in (0, 11, 23):
        for index, each in enumerate(long.truth["objects"]):
            seen = long.masks[index, frame]
            assert seen.sum() == each["pixels"][frame]
            colour = long.frames[frame][seen]
            assert len(colour) == 0 or np.median(np.abs(colour - long.frames[0][long.masks[index, 0]].mean(0))) < 60
