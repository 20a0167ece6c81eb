"""Fit the suitability model to rated clips."""
