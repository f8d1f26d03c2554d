"""Speed and memory, each compared with a peer or a total that was measured in the same run: ``make bench``.

Results are written to ``benchmarks/results/KIND/NAME.json`` with device, versions and revision. Documents quote only
these files.
"""
