"""The papers' experiments, in one or more modules per paper. :mod:`polypath.reproduce.registry` lists the modules."""
