"""Measures the times in the shipped bundle's manifest again: every path in every installed runtime, at batch 1 and 8.

Of the bundle in the source tree, only ``manifest.json`` is rewritten.
"""

from __future__ import annotations

from polypath.deploy.bundle import SHIPPED, Bundle
from polypath.deploy.write import finish, timed

BATCHES = (1, 8)


def run() -> dict:
    bundle = Bundle.open(SHIPPED)
    manifest = timed(SHIPPED, bundle.manifest, BATCHES)
    finish(SHIPPED, manifest)
    Bundle.open(SHIPPED)
    return {"bundle": bundle.name, "rows": [dict(row) for row in manifest.latency]}
