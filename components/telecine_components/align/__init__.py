"""Align a trained model with a reward: collect films, label them, tune on them, round by round."""
