"""Backlot: short films drawn from a seed, with exact truth about every shot. numpy only, no torch."""

from telecine_models.backlot.director import Film, film

__all__ = ["Film", "film"]
