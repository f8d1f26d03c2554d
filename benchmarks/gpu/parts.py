"""A result file that is written part by part, so that a stopped step can resume."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polypath.storage.files import write_json

Part = Callable[[], dict[str, Any]]
SAME = ("revision", "packed", "torch", "device_name")
"""Fields of an environment that must be equal to those in a result file. Otherwise, the file is started again."""


def measure(file: Path, parts: Mapping[str, Part], environment: Mapping[str, Any]) -> bool:
    """Run the parts that ``file`` does not contain yet, and write the file after each part. Return whether all parts
    succeeded.

    Lists that parts return under the same key are joined. Of other values, the last one is kept. If a part raises an
    exception, it is recorded in ``failed``, and the part runs again next time.
    """
    document = _kept(file, environment)
    for name, part in parts.items():
        if name in document["parts"]:
            continue
        begun = time.perf_counter()
        try:
            found = part()
        except Exception as error:  # the next part may succeed
            traceback.print_exc()
            document["failed"][name] = f"{type(error).__name__}: {error}"
        else:
            document["failed"].pop(name, None)
            document["parts"][name] = round(time.perf_counter() - begun, 1)
            for key, value in found.items():
                document[key] = [*document.get(key, []), *value] if isinstance(value, list) else value
        write_json(file, document)
    return not document["failed"]


def with_pack(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment with the revision from which the pack was made, since a copy of a checkout may have no
    git. The command is left out, since it contains folders of this machine."""
    known = {name: value for name, value in environment.items() if name != "command"}
    return {**known, "packed": os.environ.get("POLYPATH_PACKED")}


def _kept(file: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    if file.is_file():
        document = json.loads(file.read_text(encoding="utf-8"))
        known = document.get("environment", {})
        if "parts" in document and all(known.get(name) == environment[name] for name in SAME):
            return document
    return {"environment": dict(environment), "parts": {}, "failed": {}}
