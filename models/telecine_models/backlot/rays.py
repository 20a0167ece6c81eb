"""The rays through the pixels of some frames, on which everything that is drawn in the world rests."""

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.camera import Views

Floats = npt.NDArray[np.float32]
Plane = npt.NDArray[np.float64]
Crop = tuple[slice, slice]
"""Rows and columns."""


class Rays:
    """Rays through the centres of all pixels of some frames: float32, (x, y, 1) in camera axes."""

    def __init__(self, views: Views, frames: slice, height: int, width: int) -> None:
        lens = views.intrinsics[frames]
        self.focal_px = lens[:, 0, 0]
        self.rotation = views.poses[frames, :, :3]
        self.shift = views.poses[frames, :, 3]
        self.eyes_m = views.eyes_m[frames]
        columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
        self.x = ((columns - lens[:, 0, 2, None]) / self.focal_px[:, None])[:, None, :].astype(np.float32)
        self.y = ((rows - lens[:, 1, 2, None]) / self.focal_px[:, None])[:, :, None].astype(np.float32)

    def along(self, axes: Plane, crop: Crop = (slice(None), slice(None))) -> Floats:
        """Scalar products [f, h, w] of the rays with one vector [f, 3] per frame, in camera axes."""
        x, y, z = (axes[:, index, None, None].astype(np.float32) for index in range(3))
        product: Floats = x * self.x[:, :, crop[1]] + (y * self.y[:, crop[0]] + z)
        return product
