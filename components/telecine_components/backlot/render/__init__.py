"""Render Backlot films into a folder of videos."""
