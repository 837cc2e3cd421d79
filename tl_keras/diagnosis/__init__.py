"""Knowing beforehand whether transfer will help, and whether the data has shifted."""
