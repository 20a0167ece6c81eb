"""Encode kept clips as training shards with an index."""
