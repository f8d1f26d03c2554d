"""Which code made a result, and which definition: what tells results apart that must not be mixed."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from polypath.reproduce.experiment import Experiment, Scale
from polypath.storage.digests import json_digest
from polypath.training.recipe import recipe_to_json
from polypath.training.run import revision


@functools.cache
def code_id() -> str:
    """The git revision of the code that runs (12 digits); where files differ from it, or outside of git, with a digest
    of the package's source."""
    head = revision()
    if head is not None and not head.endswith("+changes"):
        return head[:12]
    return f"{(head or 'unversioned')[:12].rstrip('+')}-{source_digest()}"


def source_digest() -> str:
    """A digest (8 digits) of the package's Python files."""
    root, h = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        h.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return h.hexdigest()[:8]


def definition_id(experiment: Experiment, scale: str, plan: Scale) -> str:
    """A digest of what an experiment is at a scale: arms (without seed, device, source of images), changes, claims."""
    arms: dict[str, Any] = {}
    for arm, recipe in plan.arms.items():
        values = recipe_to_json(recipe)
        values = {k: v for k, v in values.items() if k not in ("name", "seed", "device", "assumed")}
        arms[arm] = values | {"data": {k: v for k, v in values["data"].items() if k != "source"}}
    claims = [[claim.text, claim.says, claim.unit] for claim in experiment.claims]
    return json_digest([experiment.name, scale, arms, list(plan.changes), claims])[:12]
