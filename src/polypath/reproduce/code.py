"""Which code made a result: results of different code must not be mixed."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

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
