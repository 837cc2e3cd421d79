"""Bases, heads, builders and the graph of a model."""
