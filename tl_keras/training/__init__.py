"""Training: stages, plans, the cache of frozen features, resume."""
