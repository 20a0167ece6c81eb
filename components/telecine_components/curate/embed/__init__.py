"""Embed kept clips with an image model from disk."""
