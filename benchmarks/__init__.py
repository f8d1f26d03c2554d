"""Benchmarks of speed and memory (``make bench``). Each compares a measurement with others from the same run.

Results are written to ``benchmarks/results/KIND/NAME.json`` with device, versions and revision. The documentation takes
its numbers only from these files.
"""
