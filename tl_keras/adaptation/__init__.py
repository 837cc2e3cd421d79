"""Adapting a trained base with few parameters, and keeping what was learnt."""
