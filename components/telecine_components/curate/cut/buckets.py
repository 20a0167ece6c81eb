"""Which clips share a shard: those of like resolution, aspect and length, in the bins of cosmos-curate."""

import bisect

ASPECT_EDGES = (0.65, 0.88, 1.16, 1.55)
"""Width over height; a clip on an edge is in the bin below."""
ASPECTS = ("9_16", "3_4", "1_1", "4_3", "16_9")
FRAMES_PER_BIN = 256


def bucket(width_px: int, height_px: int, num_frames: int) -> str:
    """Folder of a clip: ``resolution_720/aspect_ratio_16_9/frames_0_255``."""
    side_px = min(width_px, height_px)
    resolution = "1080" if side_px >= 1080 else "720" if side_px >= 720 else "lt_720"
    aspect = ASPECTS[bisect.bisect_left(ASPECT_EDGES, width_px / height_px)]
    first = num_frames // FRAMES_PER_BIN * FRAMES_PER_BIN
    return f"resolution_{resolution}/aspect_ratio_{aspect}/frames_{first}_{first + FRAMES_PER_BIN - 1}"
