"""Teaches a run new classes or new data."""
