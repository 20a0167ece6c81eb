"""Encode Backlot clips as training samples with conditions and actions."""
