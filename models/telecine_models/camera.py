"""Camera moves: poses for a model to follow, and how far a generated move is from the wanted one.

A pose is world-to-camera, [R|t] with x_camera = R x_world + t and camera axes x right, y down, z forward (as OpenCV has
them). Angles are in radians. F frames; H, W pixels, of which pixel (0, 0) covers 0..1 in both directions.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor

# Cameras that go less far, in the unit of their poses, have not moved: what is left is rounding of float32 poses.
_STILL = 1e-5


def relative_poses(poses: Float[Tensor, "*batch F 3 4"]) -> Float[Tensor, "*batch F 3 4"]:
    """Camera-to-world poses in the axes of the first camera: from there, where each camera is and how it is turned.

    The first is always [I|0], so the choice of the world's axes does not matter.
    """
    rotations, shifts = poses[..., :3], poses[..., 3:]
    turned = rotations[..., :1, :, :] @ rotations.transpose(-1, -2)
    return torch.cat((turned, shifts[..., :1, :, :] - turned @ shifts), dim=-1)


def scale_normalised(poses: Float[Tensor, "*batch F 3 4"]) -> Float[Tensor, "*batch F 3 4"]:
    """Relative poses with the farthest camera at distance 1; a camera that stays where it is stays there.

    A video alone does not tell whether its world is large or small, so poses estimated from it have any scale.
    """
    farthest = poses[..., 3].norm(dim=-1).amax(-1)[..., None, None]
    scale = torch.where(farthest > _STILL, farthest, torch.ones_like(farthest))
    return torch.cat((poses[..., :3], poses[..., 3:] / scale[..., None]), dim=-1)


def flatten_poses(poses: Float[Tensor, "*batch F 3 4"]) -> Float[Tensor, "*batch F 12"]:
    """Poses as the 12 numbers that a camera token holds, row by row."""
    return poses.flatten(-2)


def plucker_rays(
    poses: Float[Tensor, "*batch F 3 4"], intrinsics: Float[Tensor, "*batch F 3 3"], height: int, width: int
) -> Float[Tensor, "*batch F 6 height width"]:
    """The ray through the centre of each pixel in Plücker coordinates: its moment o x d, and its unit direction d.

    Where on the ray the camera o stands makes no difference to them. Used as a dense camera condition by CameraCtrl
    (arXiv 2404.02101). ``intrinsics`` are K in pixels.
    """
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack((columns, rows, torch.ones_like(rows))).to(poses).flatten(1)
    to_world = poses[..., :3].transpose(-1, -2)
    directions = torch.nn.functional.normalize(to_world @ torch.linalg.inv(intrinsics) @ pixels, dim=-2)
    cameras = (-to_world @ poses[..., 3:]).expand_as(directions)
    moments = torch.linalg.cross(cameras, directions, dim=-2)
    rays: Tensor = torch.cat((moments, directions), dim=-2).unflatten(-1, (height, width))
    return rays


def rotation_error(
    generated: Float[Tensor, "*batch F 3 4"], wanted: Float[Tensor, "*batch F 3 4"]
) -> Float[Tensor, "*batch"]:
    """RotErr: angles between generated and wanted directions, summed over frames (CameraCtrl, arXiv 2404.02101).

    The angle of Q = R S^T is arccos((tr Q - 1) / 2), and because |R - S|^2 = 6 - 2 tr Q it is 2 arcsin(|R - S| / 8^0.5)
    as well. That keeps the digits of small angles, half of which are lost in the trace; rounding may take it beyond 1.
    """
    ours, truth = _aligned(generated, wanted)
    chords = torch.linalg.matrix_norm(ours[..., :3] - truth[..., :3]) / 8**0.5
    angles: Tensor = 2 * chords.clamp(max=1).arcsin()
    return angles.sum(-1)


def translation_error(
    generated: Float[Tensor, "*batch F 3 4"], wanted: Float[Tensor, "*batch F 3 4"]
) -> Float[Tensor, "*batch"]:
    """TransErr: distances between generated and wanted places, summed over frames; each move is scaled to 1."""
    ours, truth = _aligned(generated, wanted)
    distances: Tensor = torch.linalg.vector_norm(ours[..., 3] - truth[..., 3], dim=-1)
    return distances.sum(-1)


def camera_motion_consistency(
    generated: Float[Tensor, "*batch F 3 4"], wanted: Float[Tensor, "*batch F 3 4"]
) -> Float[Tensor, "*batch"]:
    """CamMC: Frobenius distances between whole poses, summed over frames; each move is scaled to 1."""
    ours, truth = _aligned(generated, wanted)
    distances: Tensor = torch.linalg.matrix_norm(ours - truth)
    return distances.sum(-1)


def depth_error(
    generated: Real[Tensor, "*batch F H W"], wanted: Real[Tensor, "*batch F H W"]
) -> Float[Tensor, "*batch"]:
    """Mean absolute difference of depth maps with values from 0 to 255, whole numbers or not.

    Raises:
        ValueError: a value outside 0..255.
    """
    for name, value in (("generated", generated), ("wanted", wanted)):
        low, high = value.aminmax()
        if not (low >= 0 and high <= 255):
            raise ValueError(f"depth_error: {name} must lie in [0, 255], got {low.item()} to {high.item()}")
    return (generated.to(torch.float64) - wanted.to(torch.float64)).abs().mean((-1, -2, -3))


def _aligned(
    generated: Float[Tensor, "*batch F 3 4"], wanted: Float[Tensor, "*batch F 3 4"]
) -> tuple[Float[Tensor, "*batch F 3 4"], Float[Tensor, "*batch F 3 4"]]:
    """Both relative to their first frame and of scale 1."""
    return scale_normalised(relative_poses(generated)), scale_normalised(relative_poses(wanted))
