"""evaluate.sample: films from fixed prompts and seeds."""
