"""The packages that an export needs besides torch, checked before any work."""

from __future__ import annotations

from polypath.core.checks import check, one_of
from polypath.core.extras import installed, need

CHECKERS = ("onnxruntime", "openvino")
"""Runtimes in which an ONNX file is compared with eager: all of them that are installed, one at least."""

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
    """Check that all packages to write ``format`` are installed (``steps``: a gated network step by step; ``int8``: a
    bundle's paths in it).

    Raises:
        ValueError: an unknown format.
        ImportError: a package is missing; the message says what to install.
    """
    check("format", format, one_of(*_NEEDS))
    for package in _NEEDS[format]:
        need(package, f"export to {format}", _EXTRAS.get(package, "deploy"))
    if format in ("bundle", "onnx", "int8"):
        checkers()


def checkers() -> list[str]:
    """The runtimes that compare an ONNX file with eager here.

    Raises:
        ImportError: there is none, so an export could not be checked.
    """
    found = [name for name in CHECKERS if installed(name)]
    if not found:
        raise ImportError("checking an export needs onnxruntime or openvino: pip install 'polypath[deploy]'")
    return found
