"""Training of video models from random weights."""
