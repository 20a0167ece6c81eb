"""Suitability of a clip for training: the model that curate.learn fits and curate.filter asks."""
