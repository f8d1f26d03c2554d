"""Finds the best paths of a trained network among all its choices, not only the named ones.

:func:`polypath.search.search.search` searches a finished run. :mod:`.result` reads the result.
"""
