"""A training that a drill can hold at any step."""
