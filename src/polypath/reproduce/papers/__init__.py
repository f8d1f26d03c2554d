"""The papers' experiments, a module or two a paper; :mod:`polypath.reproduce.registry` finds them."""
