"""Turn off telemetry and update checks of other packages, so that no host is contacted unless the user requests it.

Most packages read an environment variable for this on import, so :func:`silence` runs when ``polypath`` is imported. A
variable that is already set keeps its value, and child processes inherit all variables. OpenVINO and NNCF have no such
variable; :func:`imported` imports them without telemetry. Ray contacts hosts even if its reports are off, so clusters
are started inside :func:`without_ray_usage`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it datasets, timm, Gradio
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets
    "GRADIO_ANALYTICS_ENABLED": "False",  # reports, and the check for a newer Gradio
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",  # crash reports, to another host than the tracker's
    "WANDB_X_DISABLE_UPDATE_CHECK": "true",
}


def silence() -> None:
    """Set the variables of :data:`SILENT` that are not set yet."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


def imported(package: str) -> ModuleType:
    """Import a package; import OpenVINO and NNCF without their telemetry.

    The telemetry is a separate, optional package. It is hidden during the import, unless the user has agreed to
    reports (``opt_in_out --opt_in`` writes a 1 into ``~/intel/openvino_telemetry``).
    """
    reporter = "openvino_telemetry"
    if package.partition(".")[0] not in ("openvino", "nncf") or package in sys.modules or _agreed():
        return importlib.import_module(package)
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None  # pyright: ignore[reportArgumentType] (None makes its import an ImportError)
    try:
        return importlib.import_module(package)
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before


@contextlib.contextmanager
def without_ray_usage() -> Generator[None]:
    """Make ``ray.init`` start clusters without Ray's dashboard and usage reporter inside the block.

    If the user has agreed to reports, nothing changes. Dashboard and reporter are one process. Even if reports are off,
    this process contacts the metadata hosts of three clouds to find out where it runs.
    """
    with contextlib.ExitStack() as undo:
        if os.environ.get("RAY_USAGE_STATS_ENABLED") != "1":
            with contextlib.suppress(ImportError, AttributeError):  # another version of Ray runs unchanged
                services: Any = importlib.import_module("ray._private.services")
                undo.callback(setattr, services, "start_api_server", services.start_api_server)
                services.start_api_server = _not_started
        yield


def _not_started(*_: Any, **__: Any) -> tuple[str, None]:
    return "", None  # the server's address, the server's process


def _agreed() -> bool:
    with contextlib.suppress(OSError, RuntimeError):  # the file or the home folder may not exist
        return (Path.home() / "intel/openvino_telemetry").read_text().strip() == "1"
    return False
