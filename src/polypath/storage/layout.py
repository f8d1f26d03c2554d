"""The names of the files of a saved network."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG, WEIGHTS, CARD = FILES = ("config.json", "model.safetensors", "README.md")
Folder = str | os.PathLike[str]


def in_run(folder: Folder) -> str:
    """Return a hint for messages about a folder that is not a saved network: what to do if the folder is a run."""
    model = Path(folder) / "model"
    if (model / CONFIG).is_file():
        return f"; this is a run: its network is in {model}, and `polypath export {folder}` writes a bundle"
    if (Path(folder) / "recipe.json").is_file():
        return f"; this is an unfinished run: continue it with `polypath resume {folder}`"
    return ""
