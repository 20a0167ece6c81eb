"""The video diffusion transformer: torch-free configuration, patches, rotary positions, blocks, model."""
