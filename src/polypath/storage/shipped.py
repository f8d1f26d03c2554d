"""The location of the pretrained network that comes with the package: the folder of its bundle."""

from __future__ import annotations

from pathlib import Path

PRETRAINED = "pretrained"
"""The name of the pretrained network, which can be given instead of a folder. For a folder of this name write
``./pretrained``."""
SHIPPED = Path(__file__).parents[1] / "deploy" / PRETRAINED
