"""A run: its directory, its configuration, its data and its life."""
