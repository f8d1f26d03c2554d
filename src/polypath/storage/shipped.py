"""The pretrained network that comes with the package, in the folder of its bundle."""

from __future__ import annotations

from pathlib import Path

PRETRAINED = "pretrained"
"""The name by which it is asked for where a folder can be given; a folder of this name is ``./pretrained``."""
SHIPPED = Path(__file__).parents[1] / "deploy" / PRETRAINED
