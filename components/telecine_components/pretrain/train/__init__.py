"""pretrain.train: a text-conditioned video model from curated shards."""
