"""Selects a bundle's paths for this machine, by their precision and by the instructions for which errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polypath.core.checks import listed
from polypath.deploy.bundle import Bundle
from polypath.deploy.manifest import BundlePath
from polypath.profiling.instructions import has_bf16, instructions

OF_GRAPHS = ("openvino", "onnxruntime")
"""Runtimes that run graphs, and so can run int8 paths. The other runtimes run the network itself in floating point."""


def usable(bundle: Bundle, precision: str, runtimes: Sequence[str]) -> tuple[Bundle, list[str], str]:
    """Return the bundle with only the paths that ``precision`` allows, and the runtimes that can run them. Also return
    a note on the paths that were left out, which is empty if there are none.

    Args:
        precision: ``auto`` allows float32 paths, and int8 paths whose error on this machine is known. ``f32`` and
            ``bf16`` allow the float32 paths. ``int8`` allows all int8 paths, even if their error is unknown.
        runtimes: names of the runtimes to choose from.

    Raises:
        ValueError: no path is left, or the precision is bf16 and the processor has no instructions for it.
    """
    if precision == "bf16" and "cuda-graphs" not in runtimes and not has_bf16():
        raise ValueError("precision 'bf16': this processor has no bf16 instructions and would emulate them; use f32")
    kind = instructions()
    graphs = [name for name in runtimes if name in OF_GRAPHS]
    unknown = [path for path in bundle.paths if path.errors_with(kind) is None]
    if precision == "int8":
        kept = [path for path in bundle.paths if path.precision == "int8"]
    elif precision == "auto" and graphs:
        kept = [path for path in bundle.paths if path not in unknown]
    else:
        kept = [path for path in bundle.paths if path.precision == "f32"]
    whole = any(path.precision != "f32" for path in kept)
    if not kept or (whole and not graphs):
        raise ValueError(_none_left(bundle, precision, runtimes, unknown, kind))
    note = ""
    if precision == "auto" and unknown and graphs:
        names = listed([path.name for path in unknown])
        note = f"paths {names} are left out: their errors are not known with {_facts(unknown, kind)}"
    elif precision == "auto" and len(kept) < len(bundle.paths):
        note = f"paths in int8 are left out: {listed(list(runtimes))} cannot run them"
    known = bundle if len(kept) == len(bundle.paths) else bundle.with_paths([path.name for path in kept])
    return on_kind(known, kind), graphs if whole else list(runtimes), note


def on_kind(bundle: Bundle, kind: str) -> Bundle:
    """Return the bundle with the errors of its paths that were measured with one kind of instructions."""
    if all(path.precision == "f32" for path in bundle.paths):
        return bundle
    paths = tuple(_on(path, kind) for path in bundle.paths)
    return replace(bundle, manifest=replace(bundle.manifest, paths=paths))


def _on(path: BundlePath, kind: str) -> BundlePath:
    found = path.errors_with(kind)
    return path if found is None else replace(path, error=found.error, test_error=found.test_error)


def _none_left(
    bundle: Bundle, precision: str, runtimes: Sequence[str], unknown: Sequence[BundlePath], kind: str
) -> str:
    if precision == "int8" and all(path.precision == "f32" for path in bundle.paths):
        return f"precision 'int8': {bundle.folder} has no paths in int8; `polypath export --precision int8` writes them"
    if precision == "auto" and unknown:
        return (
            f"precision 'auto': the errors of all paths of {bundle.folder} are unknown with {_facts(unknown, kind)}; "
            "use precision 'int8' to run the paths anyway"
        )
    if not any(name in OF_GRAPHS for name in runtimes):
        names = listed(list(runtimes))
        return f"runtime {names} cannot run int8 paths, but {bundle.folder} has no others; use openvino or onnxruntime"
    return f"precision {precision!r}: {bundle.folder} has only paths in int8"


def _facts(unknown: Sequence[BundlePath], kind: str) -> str:
    kinds = sorted({known for path in unknown for known in path.errors})
    return f"this machine's instructions ({kind}; known: {listed(kinds)})" if kinds else f"{kind} or other instructions"
