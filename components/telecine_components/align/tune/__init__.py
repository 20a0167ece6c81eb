"""align.tune: one round of reward-weighted regression."""
