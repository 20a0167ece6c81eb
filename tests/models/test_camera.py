"""Cameras: relative poses, rays, and the known answers of the metrics."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from telecine_models.backlot.camera import poses as backlot_poses
from telecine_models.camera import (
    camera_motion_consistency,
    depth_error,
    flatten_poses,
    plucker_rays,
    relative_poses,
    rotation_error,
    scale_normalised,
    translation_error,
)

NUM_FRAMES = 20
STILL = torch.eye(3, 4, dtype=torch.float64).repeat(NUM_FRAMES, 1, 1)
METRICS = [rotation_error, translation_error, camera_motion_consistency]


def moved(x: float) -> Tensor:
    """A camera that jumps by x to the right after the first frame."""
    poses = STILL.clone()
    poses[1:, 0, 3] = -x
    return poses


def turned(degrees: float) -> Tensor:
    """A camera that turns about the vertical after the first frame."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    poses = STILL.clone()
    poses[1:, :, :3] = torch.tensor([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=torch.float64)
    return poses


def wandering(seed: int = 0, num_frames: int = NUM_FRAMES) -> Tensor:
    rng = np.random.default_rng(seed)
    yaw, pitch, roll = rng.normal(0, 0.7, (3, num_frames))
    return torch.from_numpy(backlot_poses(rng.normal(0, 2, (num_frames, 3)), yaw, pitch, roll))


def rigid(seed: int = 5) -> tuple[Tensor, Tensor]:
    """Some other choice of the world's axes: its rotation and the place of its origin."""
    pose = wandering(seed, 1)[0]
    return pose[:, :3], pose[:, 3:]


def seen_from_another_world(poses: Tensor) -> Tensor:
    rotation, shift = rigid()
    return torch.cat((poses[..., :3] @ rotation, poses[..., :3] @ shift + poses[..., 3:]), dim=-1)


def scaled(poses: Tensor, scale: float) -> Tensor:
    return torch.cat((poses[..., :3], poses[..., 3:] * scale), dim=-1)


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_move_has_no_error(metric: object) -> None:
    for poses in (STILL, moved(3), turned(90), wandering()):
        assert float(metric(poses, poses)) == pytest.approx(0, abs=1e-5)


def test_ninety_degrees_in_nineteen_frames() -> None:
    assert float(rotation_error(turned(90), STILL)) == pytest.approx(19 * math.pi / 2)
    assert float(rotation_error(turned(-90), STILL)) == pytest.approx(29.845, abs=1e-3)
    assert float(rotation_error(turned(180), STILL)) == pytest.approx(19 * math.pi, abs=1e-5)
    assert float(translation_error(turned(90), STILL)) == 0
    # Of a right angle two entries go from 1 to 0 and two from 0 to 1.
    assert float(camera_motion_consistency(turned(90), STILL)) == pytest.approx(19 * 2)


def test_one_step_to_the_right_in_nineteen_frames() -> None:
    assert float(translation_error(moved(1), STILL)) == pytest.approx(19)
    assert float(camera_motion_consistency(moved(1), STILL)) == pytest.approx(19)
    assert float(rotation_error(moved(1), STILL)) == 0
    assert float(translation_error(moved(1), moved(-1))) == pytest.approx(38)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [0.01, 7.0, 1000.0])
def test_the_scale_of_the_world_does_not_matter(metric: object, scale: float) -> None:
    ours, truth = wandering(1), wandering(2)
    expected = float(metric(ours, truth))
    assert expected > 1
    assert float(metric(scaled(ours, scale), truth)) == pytest.approx(expected)
    assert float(metric(ours, scaled(truth, scale))) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_the_axes_of_the_world_do_not_matter(metric: object) -> None:
    ours, truth = wandering(1), wandering(2)
    assert float(metric(seen_from_another_world(ours), truth)) == pytest.approx(float(metric(ours, truth)))


def test_the_rotation_error_is_the_angle_in_the_trace() -> None:
    ours, truth = wandering(1), wandering(2)
    aligned = [relative_poses(poses)[..., :3] for poses in (ours, truth)]
    cosines = ((aligned[0] @ aligned[1].mT).diagonal(dim1=-1, dim2=-2).sum(-1) - 1) / 2
    assert float(rotation_error(ours, truth)) == pytest.approx(float(cosines.clamp(-1, 1).arccos().sum()), abs=1e-6)


def test_rounding_never_makes_a_number_that_is_none() -> None:
    """In float32 the trace of R R^T is often above 3, and half a turn can be more than the longest chord."""
    low = torch.stack([wandering(seed) for seed in range(50)]).float()
    assert ((low[..., :3] @ low[..., :3].mT).diagonal(dim1=-1, dim2=-2).sum(-1) > 3).any()
    assert rotation_error(low, low).tolist() == [0] * 50
    halfway = low.clone()
    halfway[:, 1:, :, :3] = low[:, 1:, :, :3] @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    halfway[:, :, :, 3] = 0
    turned_too = low.clone()
    turned_too[:, :, :, 3] = 0
    assert rotation_error(halfway, turned_too).tolist() == pytest.approx([19 * math.pi] * 50, abs=0.05)


def test_a_small_turn_keeps_its_digits_in_low_precision() -> None:
    assert float(rotation_error(turned(0.01).float(), STILL.float())) == pytest.approx(math.radians(0.19), rel=1e-3)


def test_a_camera_that_only_turns_goes_nowhere() -> None:
    """Its place is not the world's origin, so the translations of its poses change; what they leave is rounding."""
    eyes, zero = np.tile((3.0, -1.6, 5.0), (NUM_FRAMES, 1)), np.zeros(NUM_FRAMES)
    panning = torch.from_numpy(backlot_poses(eyes, np.linspace(0, 1, NUM_FRAMES), zero, zero))
    for poses in (panning, panning.float()):
        assert float(translation_error(poses, STILL)) < 1e-3
        assert float(rotation_error(poses, STILL)) == pytest.approx(NUM_FRAMES / 2, rel=1e-5)


def test_a_batch_has_an_error_for_each_member() -> None:
    errors = translation_error(torch.stack([moved(1), STILL]), torch.stack([STILL, STILL]))
    assert errors.tolist() == pytest.approx([19, 0])


def test_relative_poses_start_at_the_origin_and_say_where_each_camera_is() -> None:
    eyes = np.array([[1.0, -2.0, 3.0], [1.0, -2.0, 4.0], [3.0, -2.0, 3.0]])
    zero = np.zeros(3)
    poses = torch.from_numpy(backlot_poses(eyes, zero + math.pi / 2, zero, zero))
    relative = relative_poses(poses)
    torch.testing.assert_close(relative[0], torch.eye(3, 4, dtype=torch.float64))
    # The first camera looks along the world's x: what the world calls forward is to its left.
    torch.testing.assert_close(relative[1:, :, 3], torch.tensor([[-1.0, 0, 0], [0, 0, 2]], dtype=torch.float64))
    torch.testing.assert_close(relative_poses(seen_from_another_world(poses)), relative)


def test_normalised_poses_reach_distance_one_and_keep_their_rotations() -> None:
    poses = relative_poses(wandering())
    normalised = scale_normalised(poses)
    assert float(normalised[..., 3].norm(dim=-1).max()) == pytest.approx(1)
    assert torch.equal(normalised[..., :3], poses[..., :3])
    torch.testing.assert_close(normalised[..., 3] * poses[..., 3].norm(dim=-1).max(), poses[..., 3])
    assert torch.equal(scale_normalised(STILL), STILL)


def test_a_token_holds_a_pose_row_by_row() -> None:
    poses = torch.arange(24.0).view(1, 2, 3, 4)
    assert flatten_poses(poses).tolist() == [[list(range(12)), list(range(12, 24))]]


def test_rays_go_through_their_pixels_and_their_moments_stand_on_them() -> None:
    poses = wandering(num_frames=3)[None]
    intrinsics = torch.tensor([[4.0, 0, 3], [0, 4, 2], [0, 0, 1]], dtype=torch.float64).expand(1, 3, 3, 3)
    rays = plucker_rays(poses, intrinsics, height=4, width=6)
    assert rays.shape == (1, 3, 6, 4, 6)
    moments, directions = rays.split(3, dim=2)
    torch.testing.assert_close(directions.norm(dim=2), torch.ones(1, 3, 4, 6, dtype=torch.float64))
    torch.testing.assert_close((moments * directions).sum(2), torch.zeros(1, 3, 4, 6, dtype=torch.float64))
    # Any point of the ray has the ray's moment, and is seen in the ray's pixel.
    camera = -poses[..., :3].mT @ poses[..., 3:]
    points = camera[..., None] + 2.5 * directions
    torch.testing.assert_close(torch.linalg.cross(points, directions, dim=2), moments)
    seen = intrinsics @ (poses[..., :3] @ points.flatten(3) + poses[..., 3:])
    pixels = (seen[..., :2, :] / seen[..., 2:, :]).unflatten(-1, (4, 6))
    torch.testing.assert_close(pixels[0, :, 0, 1], torch.arange(6.0, dtype=torch.float64).add(0.5).expand(3, 6))
    torch.testing.assert_close(pixels[0, :, 1, :, 2], torch.arange(4.0, dtype=torch.float64).add(0.5).expand(3, 4))
    assert (seen[..., 2, :] > 0).all()


def test_depth_error_is_the_mean_difference_of_eight_bit_maps() -> None:
    dark, bright = torch.full((2, 3, 4, 5), 10, dtype=torch.uint8), torch.full((2, 3, 4, 5), 250, dtype=torch.uint8)
    assert depth_error(dark, bright).tolist() == depth_error(bright, dark).tolist() == [240, 240]
    bright[1] = 10
    assert depth_error(dark, bright).tolist() == [240, 0]
    assert float(depth_error(dark[0].float() + 0.5, dark[0])) == 0.5


@pytest.mark.parametrize("value", [-1.0, 255.5, math.nan])
def test_depth_that_is_no_eight_bit_map_is_named(value: float) -> None:
    maps = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match=r"wanted must lie in \[0, 255\], got"):
        depth_error(maps, maps.index_fill(1, torch.tensor([1]), value))
