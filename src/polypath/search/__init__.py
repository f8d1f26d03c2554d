"""The best paths of a trained network, not only the named ones.

:func:`polypath.search.search.search` looks for them in a finished run, :mod:`.result` reads what it found.
"""
