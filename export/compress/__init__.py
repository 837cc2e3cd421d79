"""Pruning, clustering and quantization-aware training by tfmot."""
