"""Samples and labels: where they come from, how they are split, decoded, checked and varied."""
