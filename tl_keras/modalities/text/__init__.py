"""Texts: tokens of a fixed number, as ids."""
