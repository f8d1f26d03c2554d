"""Speed and memory, each against a peer or a share inside the same run. ``make bench`` runs all, ``make bench ONLY=name`` one.

Results go to ``benchmarks/results/NAME.json`` with device, versions and revision; documents quote these files only.
"""
