"""What runs: one folder per component (``<area>/<verb>``), plus what trainers and media code share."""
