"""Find shots, cut them into clips and measure each clip."""
