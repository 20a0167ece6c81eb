"""Footage rendered from Backlot, the built-in test bed with exact truth."""
