"""The shipped network twice, as two networks of one bundle: files without an export."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import SHIPPED

SHARED = (manifests.NAME, "held_out.safetensors")
NAMES = ("a", "b")


def two_networks(folder: Path, link: bool = False) -> Path:
    """A bundle of format 2 in a new folder; its ladder is that of ``a``.

    Args:
        link: link the shipped files rather than copy them.
    """
    folder.mkdir()
    for name in NAMES:
        (folder / name).mkdir()
    values = of_two(json.loads((SHIPPED / manifests.NAME).read_text()))
    for name in values["files"]:
        source = SHIPPED / name.rpartition("/")[2]
        if link:
            os.symlink(source, folder / name)
        else:
            shutil.copyfile(source, folder / name)
    (folder / manifests.NAME).write_text(json.dumps(values))
    return folder


def of_two(values: dict[str, Any]) -> dict[str, Any]:
    """The shipped manifest's values as those of two networks."""
    paths = [
        {
            **path,
            "name": f"{name}:{path['name']}",
            "network": name,
            "precision": "f32",
            "errors": {},
            "files": {kind: f"{name}/{file}" for kind, file in path["files"].items()},
        }
        for path in values["paths"]
        for name in NAMES
    ]
    ladder = [
        {**rung, "path": f"a:{rung['path']}", "combine": [f"a:{name}" for name in rung["combine"]]}
        for rung in values["ladder"]
    ]
    files = {f"{name}/{file}": facts for file, facts in values["files"].items() for name in NAMES if file not in SHARED}
    files |= {file: facts for file, facts in values["files"].items() if file in SHARED}
    networks = {name: {"family": values["family"], "about": {}} for name in NAMES}
    changed = {"format_version": 2, "networks": networks, "paths": paths, "ladder": ladder, "files": files}
    found = {key: value for key, value in values.items() if key != "family"} | changed | {"latency": [], "checks": []}
    return found | {"digest": manifests.digest(found)}
