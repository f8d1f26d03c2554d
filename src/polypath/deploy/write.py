"""Writes bundles. :mod:`polypath.deploy.bundle` describes their files.

The folder appears only when it is complete, and each graph in it has been compared with eager PyTorch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from polypath.core.arguments import SEVERAL, SEVERAL_PATHS, TABLE, TEXTS, takes
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import PLACE, TEXT, instance, json_value, optional, plain
from polypath.core.deprecation import notes_are_logged
from polypath.core.extras import installed
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths
from polypath.deploy import check, heldout, onnx_graph
from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import Bundle, by_turns
from polypath.deploy.candidates import BundleNetwork, Candidate, HeldOut, candidates, check_alike, check_networks
from polypath.deploy.climb_write import write_steps
from polypath.deploy.int8 import Precisions, calibrated
from polypath.deploy.judge import judge
from polypath.deploy.manifest import BundlePath, Errors, Manifest, NetworkFacts, folder_of
from polypath.deploy.needs import check_installed
from polypath.deploy.precision import OF_GRAPHS
from polypath.deploy.quantise import Calibration
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.write_network import write_network
from polypath.profiling.cores import cores
from polypath.profiling.instructions import instructions
from polypath.storage.cards import bundle_card
from polypath.storage.digests import folder_digests
from polypath.storage.files import new_folder, write_file, write_json
from polypath.storage.layout import CARD

HELD_OUT = "held_out.safetensors"
LOG = logging.getLogger(__name__)


@notes_are_logged
@takes(
    net=NETWORK,
    folder=PLACE,
    paths=optional(SEVERAL_PATHS),
    statistics=optional(instance(BatchNormStatistics)),
    held_out=optional(instance(HeldOut)),
    keep=TEXTS,
    name=optional(TEXT),
    about=optional(TABLE),
    notes=TEXTS,
    measure=SEVERAL,
    precision=TEXT,
    calibration=optional(instance(Calibration)),
)
def write_bundle(
    net: PathNet,
    folder: str | os.PathLike[str],
    paths: Mapping[str, Paths | str] | Sequence[str] | None = None,
    *,
    statistics: BatchNormStatistics | None = None,
    held_out: HeldOut | None = None,
    keep: Sequence[str] = (),
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    measure: Sequence[int] = (),
    precision: Literal["float32", "int8", "mixed"] = "float32",
    max_drop: float = 0.5,
    calibration: Calibration | None = None,
) -> Bundle:
    """Write a bundle of paths of ``net`` into a new folder.

    If gates decide in a path, its graph runs every loop on every image (:mod:`polypath.core.execute`, ``keep``). The
    gates select among the results, but the graph takes the time of all loops.

    Args:
        net: the network, with classes, normalisation and image size in its config (a loaded network has these).
        paths: the paths by name, or only their texts; None means all named paths.
        statistics: recalibrated batch-norm statistics for some or all of the paths.
        held_out: images used to choose among ``paths`` and to calibrate them. Without these images, all paths are in
            the bundle, and none of them has an error.
        keep: names of paths that stay even if a cheaper path is as accurate.
        name: name of the bundle; by default the name of its folder.
        about: facts for readers, as JSON values.
        notes: sentences for the card.
        measure: batch sizes at which each path is timed, in every installed runtime.
        precision: ``float32``, ``int8`` or ``mixed``. With ``int8``, each path is in int8 if its error rises by at most
            ``max_drop``, otherwise in float32. ``mixed`` keeps the float32 paths. It adds an int8 path if no other path
            is both as fast and as accurate on this machine.
        max_drop: largest allowed rise of a path's held-out error, in percentage points.
        calibration: training images for quantisation. Paths in int8 need them.

    Raises:
        ValueError: the folder exists, a path is illegal, the network's config does not state how images are prepared,
            there are too few held-out images, held-out or training images for int8 are missing, or a graph differs
            from eager PyTorch.
        ImportError: the exporter's packages are missing.
    """
    one = BundleNetwork(net, paths, statistics, held_out, calibration=calibration)
    precisions = Precisions(precision, max_drop)
    return _written(
        {"": one}, folder, keep=keep, name=name, about=about, notes=notes, measure=measure, precisions=precisions
    )


@notes_are_logged
@takes(
    networks=TABLE,
    folder=PLACE,
    keep=TEXTS,
    name=optional(TEXT),
    about=optional(TABLE),
    notes=TEXTS,
    measure=SEVERAL,
    precision=TEXT,
)
def write_networks(
    networks: Mapping[str, BundleNetwork],
    folder: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    measure: Sequence[int] = (),
    precision: Literal["float32", "int8", "mixed"] = "float32",
    max_drop: float = 0.5,
) -> Bundle:
    """Write a bundle of paths of several networks into a new folder.

    The networks must have the same classes in the same order and the same image preparation. If they have held-out
    images, these must be the same, in the same order. A path is called ``NETWORK:PATH``. A path is left out only if a
    cheaper path of the same network is as accurate. Paths of different networks are not compared, since the faster one
    depends on the machine.

    Args:
        networks: the networks by name. Names consist of letters, digits and any of ``= , + - _``.
        keep, name, about, notes, measure, precision, max_drop: as for :func:`write_bundle`; ``keep`` contains names of
            the form ``NETWORK:PATH``.

    Raises:
        ValueError: as for :func:`write_bundle`, or the networks cannot be in one bundle (the message says what
            differs).
        ImportError: the exporter's packages are missing.
    """
    if not networks:
        raise ValueError("networks is empty: give at least one network")
    check_networks(networks)
    precisions = Precisions(precision, max_drop)
    return _written(
        networks, folder, keep=keep, name=name, about=about, notes=notes, measure=measure, precisions=precisions
    )


def _written(
    networks: Mapping[str, BundleNetwork],
    folder: str | os.PathLike[str],
    *,
    keep: Sequence[str],
    name: str | None,
    about: Mapping[str, Any] | None,
    notes: Sequence[str],
    measure: Sequence[int],
    precisions: Precisions,
) -> Bundle:
    target = Path(folder)
    if target.exists():
        raise ValueError(f"{target}: this folder exists; choose another one")
    facts: dict[str, Any] = json_value("about", dict(about or {}))
    several = {n: NetworkFacts(family=_family(one), about=_about_one(one)) for n, one in networks.items() if n}
    check_installed("bundle")
    precisions.check(networks)
    prep = check_alike(networks)
    judged = judge(networks, candidates(networks, prep.size), keep, precisions)
    kept, verdict, tests = judged.kept, judged.verdict, judged.tests
    table = card_rows(kept, verdict.errors if verdict else {}, tests)

    with new_folder(target) as made:
        banks: dict[str, BatchNormStatistics | None] = {}
        files: dict[str, str] = {}
        checks: list[dict[str, Any]] = []
        for network, one in networks.items():
            own = {n: candidate for n, candidate in kept.items() if candidate.network == network}
            banks[network] = one.statistics_of(candidate.paths for candidate in own.values())
            graphs, found = write_network(
                one,
                own,
                banks[network],
                made / network,
                whole={n: path.graph for n, path in judged.int8.items()},
                path_table=[row | {"name": own[row["name"]].name} for row in table if row["name"] in own],
                dataset=facts.get("dataset"),
                notes=one.notes if network else notes,
            )
            files |= {n: folder_of(network) + file for n, file in graphs.items()}
            checks += found
        checks += [row for path in judged.int8.values() for row in path.checks]
        rows = [_row(n, one, files[n], verdict, tests.get(n), banks[one.network]) for n, one in kept.items()]
        rungs = list(by_turns(rows))
        if verdict is not None:
            _save_held_out(made / HELD_OUT, verdict)
            rungs = [replace(rung, test_error=tests.get(rung.combine)) for rung in verdict.rungs]
        nets = {network: (one.net, banks[network]) for network, one in networks.items()}
        paths = [(p.network, p.paths) if p.precision == "f32" else None for p in (kept[r.path] for r in rungs)]
        rungs, found = write_steps(nets, paths, rungs, made, prep)
        if several:
            families = {n: of.family for n, of in several.items()}
            write_file(made / CARD, bundle_card(name or target.name, families, table, facts.get("dataset"), notes))
        first = next(iter(networks.values()))
        manifest = Manifest(
            name=name or target.name,
            family="" if several else _family(first),
            networks=several,
            classes=first.net.class_names,
            preparation=prep,
            paths=tuple(rows),
            ladder=tuple(rungs),
            held_out=HELD_OUT if verdict else None,
            checks=tuple(checks + found),
            about=_about(facts, None if several else first.statistics, verdict, first.held_out)
            | (calibrated(networks, precisions) if judged.int8 else {}),
        )
        manifest = finish(made, manifest)
        if measure:
            finish(made, timed(made, manifest, measure))
    return Bundle.open(target)


def _row(
    name: str,
    one: Candidate,
    file: str,
    verdict: heldout.Verdict | None,
    test_error: float | None,
    bank: BatchNormStatistics | None,
) -> BundlePath:
    error = verdict.errors[name] if verdict else None
    known = one.precision == "f32"
    return BundlePath(
        name=name,
        text=str(one.paths),
        macs=one.cost.macs,
        params=one.cost.params,
        depth=one.cost.depth,
        error=error if known else None,
        test_error=test_error if known else None,
        temperature=verdict.temperatures[name] if verdict else 1.0,
        calibration=verdict.calibration[name] if verdict else {},
        statistics=bank is not None and one.paths in bank,
        files={"onnx": file},
        network=one.network,
        precision=one.precision,
        errors={} if known else {instructions(): Errors(error=error, test_error=test_error)},
    )


def _family(one: BundleNetwork) -> str:
    return str(one.net.config.get("family", ""))


def _about_one(one: BundleNetwork) -> dict[str, Any]:
    """Return facts for readers about one of several networks."""
    estimated = {} if one.statistics is None else {"statistics": one.statistics.record}
    return plain(estimated) | json_value("about", dict(one.about))


def finish(folder: Path, manifest: Manifest) -> Manifest:
    """Add the checksums of all other files in ``folder`` to the manifest, write the manifest, and return it."""
    files = folder_digests(folder)
    files.pop(manifests.NAME, None)
    values = {f: getattr(manifest, f) for f in manifest.__dataclass_fields__}
    whole = Manifest(**{**values, "files": files})
    write_json(folder / manifests.NAME, whole.to_json())
    return whole


def card_rows(
    kept: Mapping[str, Candidate], errors: Mapping[str, float], tests: Mapping[Any, float]
) -> list[dict[str, Any]]:
    """Return the rows of the card's table. ``error`` is the test error. If some paths are in int8, rows also contain
    the precision, and the kind of instructions with which the errors were measured."""
    told = {"f32": "float32", "int8": f"int8 ({instructions()})"}
    mixed = any(one.precision != "f32" for one in kept.values())
    rows = []
    for name, of in kept.items():
        one = of.cost
        row = {"name": name, "error": tests.get(name), "held-out error, %": errors.get(name)}
        row |= {"params": one.params, "macs": one.macs, "depth": "–".join(map(str, dict.fromkeys(one.depth)))}
        row |= {"precision": told[of.precision] if mixed else None}
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def _save_held_out(file: Path, verdict: heldout.Verdict) -> None:
    from safetensors.torch import save as to_bytes

    tensors = {"confidence": verdict.confidence.contiguous(), "right": verdict.right.to(torch.uint8).contiguous()}
    write_file(file, to_bytes(tensors, {"polypath": "held_out"}))


def _about(
    about: Mapping[str, Any],
    statistics: BatchNormStatistics | None,
    verdict: heldout.Verdict | None,
    held_out: HeldOut | None,
) -> dict[str, Any]:
    facts = {"polypath": metadata.version("polypath"), "torch": torch.__version__, "opset": onnx_graph.OPSET}
    facts |= {"tolerance": check.TOLERANCE}
    if statistics is not None:
        facts["statistics"] = statistics.record
    if verdict is not None and held_out is not None:
        facts["held_out"] = {"images": verdict.images, "seed": held_out.seed}
    return plain(facts) | dict(about)


def timed(folder: Path, manifest: Manifest, batches: Sequence[int]) -> Manifest:
    """Measure the paths' times on this machine, and return the manifest with these times."""
    from polypath.deploy import latency_profile
    from polypath.deploy.latency import Timing

    bundle = Bundle(folder, manifest, "")
    rows = []
    runtimes = [name for name in ("openvino", "onnxruntime", "torch") if installed(name)]
    for runtime_name in runtimes:
        runtime = open_runtime(runtime_name, bundle)
        for batch in batches:
            x = check.images(batch, (manifest.preparation.channels, *manifest.preparation.size)).numpy()
            try:
                paths = [p for p in manifest.paths if p.precision == "f32" or runtime_name in OF_GRAPHS]
                tasks = {p.name: _task(runtime.prepare(p.name, batch), x) for p in paths}
            except ValueError as error:
                LOG.warning("%s; this runtime is not timed", error)
                break
            for path, ms in latency_profile.measure(tasks).items():
                t = Timing.of(ms)
                row = {"path": path, "runtime": runtime.name, "version": runtime.version, "batch": batch}
                row |= {"precision": "int8"} if bundle.path(path).precision == "int8" else {}
                row |= {"threads": cores(), "p50_ms": round(t.p50, 4), "p95_ms": round(t.p95, 4)}
                rows.append(row | {"p99_ms": round(t.p99, 4), "samples": t.samples, **latency_profile.machine()})
        else:
            LOG.info("timed %d paths in %s", len(manifest.paths), runtime.name)
    return replace(manifest, latency=tuple(rows))


def _task(run: Any, x: Any) -> Callable[[], Any]:
    return lambda: run(x)
