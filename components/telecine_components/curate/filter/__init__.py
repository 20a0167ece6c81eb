"""Keep the clips that pass every threshold."""
