"""align.label: a reward for every film, from the oracle or from a person."""
