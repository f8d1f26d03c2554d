"""Speed and memory, each against a peer or a share inside the same run: ``make bench``.

Results go to ``benchmarks/results/KIND/NAME.json`` with device, versions and revision; documents quote
these files only.
"""
