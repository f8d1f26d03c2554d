"""Checks, before any work, that all packages needed for an export are installed."""

from __future__ import annotations

from polypath.core.checks import check, one_of
from polypath.core.extras import installed, need

CHECKERS = ("onnxruntime", "openvino")
"""Runtimes in which an ONNX file is compared with eager PyTorch. All installed ones are used; one is required."""

_NEEDS: dict[str, tuple[str, ...]] = {
    "bundle": ("onnx", "onnxscript"),
    "onnx": ("onnx", "onnxscript"),
    "steps": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
    "triton": ("onnx",),
    "int8": ("onnx", "onnxscript", "nncf"),
}
_EXTRAS = {"nncf": "quantize"}


def check_installed(format: str) -> None:
    """Check that all packages for writing ``format`` are installed. Besides formats, ``steps`` stands for a stepwise
    export of a gated network, and ``int8`` for a bundle's int8 paths.

    Raises:
        ValueError: the format is unknown.
        ImportError: a package is missing. The message says what to install.
    """
    check("format", format, one_of(*_NEEDS))
    for package in _NEEDS[format]:
        need(package, f"export to {format}", _EXTRAS.get(package, "deploy"))
    if format in ("bundle", "onnx", "int8"):
        checkers()


def checkers() -> list[str]:
    """Return the installed runtimes in which an ONNX file can be compared with eager PyTorch.

    Raises:
        ImportError: no such runtime is installed, so an export could not be checked.
    """
    found = [name for name in CHECKERS if installed(name)]
    if not found:
        raise ImportError("checking an export needs onnxruntime or openvino: pip install 'polypath[deploy]'")
    return found
