"""A small student learns from a run."""
