"""Long clips are captioned window by window (as in NVIDIA's cosmos-curate, whose defaults these are)."""

MIN_FRAMES = 4
"""Fewer frames make no window: there is no motion to tell."""


def windows(num_frames: int, window_frames: int, min_window_frames: int) -> list[tuple[int, int]]:
    """Spans (first frame, frame after the last) of a clip of ``num_frames``.

    What is left after the last full window is one of its own from ``min_window_frames`` on, and else joins it.
    """
    if num_frames < MIN_FRAMES:
        return []
    num_full, left = divmod(num_frames, window_frames)
    ends = [window_frames * index for index in range(1, num_full + 1)]
    if left >= min_window_frames or not ends:
        ends.append(num_frames)
    ends[-1] = num_frames
    return list(zip([0, *ends], ends, strict=False))
