"""Writing a bundle: network, norms, graphs, held-out answers, manifest. See :mod:`polypath.deploy.bundle`.

The folder appears whole or not at all, and each graph in it has been compared with eager.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polypath.core.arguments import SEVERAL, SEVERAL_PATHS, TABLE, TEXTS, takes
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import PLACE, TEXT, instance, json_value, optional, plain
from polypath.core.deprecation import notes_are_logged
from polypath.core.extract import extract
from polypath.core.extras import installed
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths
from polypath.deploy import check, heldout, onnx_graph
from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import STATISTICS, Bundle, by_turns
from polypath.deploy.climb_write import write_steps
from polypath.deploy.images import preparation
from polypath.deploy.manifest import BundlePath, Manifest
from polypath.deploy.needs import check_installed
from polypath.deploy.onnx_files import check_onnx, weights_at
from polypath.deploy.runtimes import open_runtime
from polypath.profiling.cores import cores
from polypath.profiling.cost import Cost, costs
from polypath.storage.batchnorm import save_statistics
from polypath.storage.digests import folder_digests
from polypath.storage.files import new_folder, write_file, write_json
from polypath.storage.saving import save

HELD_OUT = "held_out.safetensors"
LOG = logging.getLogger(__name__)
Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeldOut:
    """Images that were not trained on, prepared as the network reads them.

    Args:
        choose: batches of held-out images with labels: they choose, calibrate and bound (three disjoint parts).
        test: batches of the test split, scored and nothing else.
        seed: cuts the held-out images into parts.
    """

    choose: Batches
    test: Batches | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", plain(self.seed))


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
) -> Bundle:
    """Write a bundle of paths of ``net`` into a new folder.

    Where gates decide in a path, its graph runs every loop on every image (:mod:`polypath.core.execute`, ``keep``): the
    answers are those of the gates, the time is that of all loops.

    Args:
        net: with classes, normalisation and image size in its config, as a loaded network has them.
        paths: by name, or just their texts; None takes all named paths.
        statistics: re-estimated norms; paths that it has use them.
        held_out: images that choose among ``paths`` and calibrate them; without, all stay, and none has an error.
        keep: names that stay even if a cheaper path is as accurate.
        name: of the bundle; its folder's otherwise.
        about: facts for readers, JSON values.
        notes: sentences for the card.
        measure: batch sizes to time each path at, in every runtime here.

    Raises:
        ValueError: a folder that is there, illegal paths, a network without what its images are, too few held-out
            images, a graph that differs from eager.
        ImportError: the exporter's packages are missing.
    """
    target = Path(folder)
    if target.exists():
        raise ValueError(f"{target}: exists; choose another folder")
    facts: dict[str, Any] = json_value("about", dict(about or {}))
    check_installed("bundle")
    try:
        prep = preparation(net.config)
    except ValueError as error:
        raise ValueError(f"this network does not say how its images are prepared ({error})") from error
    chosen = _chosen(net, paths)
    counted = costs(net, chosen, size=prep.size)
    macs = {n: counted[n].macs for n in chosen}
    if held_out is not None:
        logits, labels = scored(net, chosen, statistics, held_out.choose)
        verdict = heldout.decide(logits, labels, macs, seed=held_out.seed, keep=keep)
        names = verdict.names
    else:
        verdict, names = None, sorted(chosen, key=lambda n: macs[n])
    tests = _test_errors(net, {n: chosen[n] for n in names}, statistics, held_out, verdict)
    kept = {chosen[n]: statistics[chosen[n]] for n in names if statistics is not None and chosen[n] in statistics}

    with new_folder(target) as made:
        table = card_rows({n: counted[n] for n in names}, verdict.errors if verdict else {}, tests)
        save(net, made / "net", notes=notes, path_table=table, dataset=facts.get("dataset"))
        for file in list((made / "net").iterdir()):
            file.rename(made / file.name)
        (made / "net").rmdir()
        if statistics is not None and kept:
            save_statistics(BatchNormStatistics(kept, statistics.images, statistics.seed), made / STATISTICS)
        rows, checks = [], []
        for n in names:
            file = f"{_file_name(n, names)}.onnx"
            found = _graph(net, chosen[n], list(kept).index(chosen[n]) if chosen[n] in kept else None, kept, made, file)
            for one in found:
                LOG.info("%s: %s", n, one)
                checks.append({"path": n, "runtime": one.runtime, "max_abs": one.max_abs})
            rows.append(
                BundlePath(
                    name=n,
                    text=str(chosen[n]),
                    macs=macs[n],
                    params=counted[n].params,
                    depth=counted[n].depth,
                    error=verdict.errors[n] if verdict else None,
                    test_error=tests.get(n),
                    temperature=verdict.temperatures[n] if verdict else 1.0,
                    calibration=verdict.calibration[n] if verdict else {},
                    statistics=chosen[n] in kept,
                    files={"onnx": file},
                )
            )
        rungs = list(by_turns(rows))
        if verdict is not None:
            _save_held_out(made / HELD_OUT, verdict)
            rungs = [replace(rung, test_error=tests.get(rung.combine)) for rung in verdict.rungs]
        bank = BatchNormStatistics(kept, statistics.images, statistics.seed) if statistics is not None else None
        rungs, found = write_steps(net, [chosen[rung.path] for rung in rungs], rungs, bank, list(kept), made)
        checks += found
        manifest = Manifest(
            name=name or target.name,
            family=str(net.config.get("family", "")),
            classes=net.class_names,
            preparation=prep,
            paths=tuple(rows),
            ladder=tuple(rungs),
            held_out=HELD_OUT if verdict else None,
            checks=tuple(checks),
            about=_about(facts, statistics, verdict, held_out),
        )
        finish(made, manifest)
        if measure:
            finish(made, timed(made, manifest, measure))
    return Bundle.open(target)


def finish(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with the checksums of all other files in ``folder``."""
    files = folder_digests(folder)
    files.pop(manifests.NAME, None)
    values = {f: getattr(manifest, f) for f in manifest.__dataclass_fields__}
    write_json(folder / manifests.NAME, Manifest(**{**values, "files": files}).to_json())


def card_rows(
    counted: Mapping[str, Cost], errors: Mapping[str, float], tests: Mapping[Any, float]
) -> list[dict[str, Any]]:
    """Rows of the card's table: ``error`` is that on the test split."""
    rows = []
    for name, one in counted.items():
        row = {"name": name, "error": tests.get(name), "held-out error, %": errors.get(name)}
        row |= {"params": one.params, "macs": one.macs, "depth": "–".join(map(str, dict.fromkeys(one.depth)))}
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


@torch.inference_mode()
def scored(
    net: PathNet, paths: Mapping[str, Paths], statistics: BatchNormStatistics | None, batches: Batches
) -> tuple[dict[str, Tensor], Tensor]:
    """Logits ``(N, classes)`` of each path, with its re-estimated norms, and the labels ``(N,)``."""
    nets = {n: _extracted(net, p, statistics) for n, p in paths.items()}
    rows: dict[str, list[Tensor]] = {n: [] for n in nets}
    truth = []
    for images, labels in batches:
        for n, child in nets.items():
            rows[n].append(child(images).float())
        truth.append(labels)
    found = torch.cat(truth)
    LOG.info("scored %d paths on %s images", len(nets), f"{len(found):,}")
    return {n: torch.cat(parts) for n, parts in rows.items()}, found


def _extracted(net: PathNet, paths: Paths, statistics: BatchNormStatistics | None) -> PathNet:
    return extract(net, paths, stats=statistics if statistics is not None and paths in statistics else None).eval()


def _chosen(net: PathNet, paths: Mapping[str, Paths | str] | Sequence[str] | None) -> dict[str, Paths]:
    if paths is None:
        return net.named_paths()
    pairs = paths.items() if isinstance(paths, Mapping) else [(text, text) for text in paths]
    found = {n: net.paths(p) for n, p in pairs}
    if not found:
        raise ValueError("paths: name at least one")
    return {n: p for i, (n, p) in enumerate(found.items()) if p not in list(found.values())[:i]}


def _test_errors(
    net: PathNet,
    paths: Mapping[str, Paths],
    statistics: BatchNormStatistics | None,
    held_out: HeldOut | None,
    verdict: heldout.Verdict | None,
) -> dict[Any, float]:
    """Test errors by path name, and by what a rung combines."""
    if held_out is None or held_out.test is None or verdict is None:
        return {}
    logits, labels = scored(net, paths, statistics, held_out.test)
    found: dict[Any, float] = {n: round(heldout.error(z, labels), 4) for n, z in logits.items()}
    scaled = {n: (z / verdict.temperatures[n]).softmax(1) for n, z in logits.items()}
    for rung in verdict.rungs:
        found[rung.combine] = round(heldout.error(heldout.combined(scaled, rung), labels), 4)
    return found


def _graph(
    net: PathNet, paths: Paths, place: int | None, kept: Mapping[Paths, Any], folder: Path, file: str
) -> list[check.Check]:
    """Write a path's graph, its weights those of the bundle's shared files; compare it with eager in what is here."""
    child = extract(net, paths)
    if place is not None:
        from polypath.core.batchnorm import bake

        bake(child, kept[paths])
    child.eval()
    known = weights_at(folder, place)
    prep = preparation(net.config)
    shape = (prep.channels, *prep.size)
    program = onnx_graph.exported(child, check.images(2, shape))
    model = onnx_graph.to_onnx(program, fold=False, name=file.removesuffix(".onnx"))
    onnx_graph.point_at(model, known, folder)
    onnx_graph.write(model, folder / file)
    return check_onnx(folder / file, child, shape)


def _file_name(name: str, names: Sequence[str]) -> str:
    plain = "".join(c if c.isalnum() or c in "=,-" else "-" for c in name)
    return plain if len(plain) <= 60 else f"path-{list(names).index(name) + 1}"


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
    """The manifest with measured times of this machine."""
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
                tasks = {p.name: _task(runtime.prepare(p.name, batch), x) for p in manifest.paths}
            except ValueError as error:
                LOG.warning("%s; it is not timed", error)
                break
            for path, ms in latency_profile.measure(tasks).items():
                t = Timing.of(ms)
                row = {"path": path, "runtime": runtime.name, "version": runtime.version, "batch": batch}
                row |= {"threads": cores(), "p50_ms": round(t.p50, 4), "p95_ms": round(t.p95, 4)}
                rows.append(row | {"p99_ms": round(t.p99, 4), "samples": t.samples, **latency_profile.machine()})
        else:
            LOG.info("timed %d paths in %s", len(manifest.paths), runtime.name)
    return replace(manifest, latency=tuple(rows))


def _task(run: Any, x: Any) -> Callable[[], Any]:
    return lambda: run(x)
