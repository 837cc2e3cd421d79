"""Runs models over samples and keeps what frozen layers gave."""
