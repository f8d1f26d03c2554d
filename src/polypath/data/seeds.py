"""Random generators that depend only on a seed and a purpose. So resuming a run does not need a stored state."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *what: int | str) -> torch.Generator:
    """Make a CPU generator that is separate for each ``(seed, *what)`` and the same on every machine."""
    text = "/".join(map(repr, (seed, *what)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
