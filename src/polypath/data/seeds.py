"""Generators as pure functions of a seed and a purpose, so that resuming needs no stored generator state."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *what: int | str) -> torch.Generator:
    """A separate CPU generator for each ``(seed, *what)``, the same on every machine."""
    text = "/".join(map(repr, (seed, *what)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
