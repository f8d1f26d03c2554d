"""Measures what a path is worth, compared with a user's alternatives."""
