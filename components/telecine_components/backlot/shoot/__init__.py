"""Shoot Backlot clips: one shot each, with depth, cameras, masks, actions and sound."""
