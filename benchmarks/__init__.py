"""Speed and memory, each compared with a peer or a total measured in the same run: ``make bench``.

Results go to ``benchmarks/results/KIND/NAME.json`` with device, versions and revision; documents quote only these
files.
"""
