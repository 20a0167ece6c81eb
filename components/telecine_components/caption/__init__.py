"""Captions of clips, by a captioner of choice."""
