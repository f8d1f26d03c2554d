"""The report of a run: one self-contained HTML page, which works offline.

:mod:`.contents` runs the analyses, :mod:`.figures` draws charts, :mod:`.tables` makes tables, and :mod:`.page` fills
``page.html`` with them, ``page.css`` and ``page.js``.
"""
