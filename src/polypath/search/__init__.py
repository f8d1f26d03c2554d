"""Finds the best paths of a trained network, not only among the named ones.

:func:`polypath.search.search.search` searches a finished run, :mod:`.result` reads the result.
"""
