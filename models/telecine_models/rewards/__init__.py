"""Rewards: pure functions of a caption and frames, graded in [0, 1]. numpy only, no torch."""
