"""Measurements of the worth of paths, compared with a user's alternatives."""
