"""Measures training steps in bf16 on any processor, at batch size 64: each family and its rival, alternately.

``training`` skips bf16 if the processor has no instructions for it. torch can still compute in bf16 on such a
processor, but several times slower than in float32. The ratios, and the shares of the roof in bf16, are still
comparisons within one precision. The benchmark takes about half an hour on two cores.
"""

from __future__ import annotations

from benchmarks.harness import precisions
from benchmarks.training import compare, groups


def run() -> dict:
    rows, ratios = [], []
    for group in groups():
        if len(group) > 1:  # a rival, and the families that are compared with it
            measured, found = compare(group, 64, "bf16")
            rows += measured
            ratios += found
    return {"precisions": precisions(), "rows": rows, "ratios": ratios}
