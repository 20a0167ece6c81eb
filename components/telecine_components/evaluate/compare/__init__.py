"""evaluate.compare: two models on the same held-out prompts and noise."""
