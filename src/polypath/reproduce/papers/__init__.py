"""The papers' experiments, one or more modules per paper; :mod:`polypath.reproduce.registry` lists them."""
