"""Finds the best paths of a trained network, beyond its named paths.

:func:`polypath.search.search.search` searches a finished run. :mod:`.result` reads the result.
"""
