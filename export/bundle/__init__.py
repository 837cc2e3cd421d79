"""What ships: the archive, its manifest, model card, golden samples and report."""
