"""Mixture-of-experts feed-forwards for a DiT: DiffMoE (arXiv 2503.14487) and the baselines it is compared with."""
