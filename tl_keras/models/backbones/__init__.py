"""Pretrained backbones: the registry, their weights and their preprocessing."""
