"""Measures what a path is worth, compared with the alternatives that a user has."""
