"""The pretrained network that comes with the package, in the folder of its bundle."""

from __future__ import annotations

from pathlib import Path

PRETRAINED = "pretrained"
"""Its name, wherever a folder can be given; write ``./pretrained`` for a folder of this name."""
SHIPPED = Path(__file__).parents[1] / "deploy" / PRETRAINED
