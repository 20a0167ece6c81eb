"""Backlot: short films and clips drawn from a seed, with exact truth about every shot. numpy only, no torch."""

from telecine_models.backlot.director import Film, film
from telecine_models.backlot.take import Clip, clip

__all__ = ["Clip", "Film", "clip", "film"]
