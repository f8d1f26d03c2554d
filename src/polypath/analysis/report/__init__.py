"""The report of a run: one HTML page that needs no network, no server and no other file.

:mod:`.contents` measures, :mod:`.figures` draws, :mod:`.tables` sets tables, and :mod:`.page` writes ``page.html`` with
``page.css`` and ``page.js``.
"""
