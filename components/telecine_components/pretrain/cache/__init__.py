"""pretrain.cache: latents and token vectors of a dataset, computed once for every training on it."""
