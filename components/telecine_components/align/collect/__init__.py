"""align.collect: films of two checkpoints, and the pairs that a person may be asked about."""
