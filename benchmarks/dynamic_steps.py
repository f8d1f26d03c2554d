"""Measures whether a skipped loop saves its time. A network with gates runs step by step in ONNX Runtime, at batch
sizes 1 and 64.

It is compared with the same stepwise runtime with all gates forced open. The result is the share of time saved divided
by the share of MACs saved (aim: at least 0.85). At batch size 1, every test image is classified twice: with gates that
decide, and with gates forced open. The table also has static graphs in the same runtime: the network with fixed numbers
of loops, and a ResNet-20. All networks are trained briefly, in the same way.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

import polypath as pp
from benchmarks.trained import PLACE, briefly, cifar10
from polypath.core.network import PathNet
from polypath.data.config import DataConfig
from polypath.data.sources import load_images
from polypath.data.split import Split
from polypath.deploy.export import export_path
from polypath.deploy.images import preparation
from polypath.deploy.runtimes.onnxruntime_ import make_session
from polypath.deploy.stepwise import Stepwise
from polypath.deploy.stepwise_write import write_stepwise
from polypath.profiling.cost import macs_by_node

IMAGES, THREADS, LIMIT = 512, 2, 0.85
FEW = {"images": 2000, "epochs": 3, "test_images": 1000}


def run() -> dict:
    dynamic = pp.load(briefly("drnn-cifar10-small", "drnn", **FEW) / "model")
    rival = pp.load(briefly("resnet-cifar10-small", "resnet20", **FEW) / "model")
    steps = PLACE / "drnn-steps"
    if not steps.is_dir():
        write_stepwise(dynamic, steps)
    images, labels = _images(dynamic)
    rows = []
    for batch in (1, 64):
        row = _dynamic(dynamic, Stepwise.open(steps, THREADS), images, labels, batch)
        static = [_static(dynamic, text, images, labels, batch) for text in ("loops=0", "loops=1", "loops=max")]
        static.append(_static(rival, "whole", images, labels, batch, "ResNet-20"))
        rows.append({"batch": batch, "dynamic": row, "static": static})
        print(rows[-1])
    return {
        "images": IMAGES,
        "threads": THREADS,
        "trained": FEW,
        "limit": LIMIT,
        "rows": rows,
        "kept": all(row["dynamic"]["ratio"] >= LIMIT for row in rows),
    }


def _images(net: PathNet) -> tuple[np.ndarray, np.ndarray]:
    data = load_images(DataConfig(source=cifar10(), test_images=IMAGES))
    assert isinstance(data.test, Split)
    prep = preparation(net.config)
    images = prep.normalised(prep.array(data.test.images.permute(0, 2, 3, 1).numpy()))
    return images, data.test.labels.numpy()


def _dynamic(net: PathNet, steps: Stepwise, images: np.ndarray, labels: np.ndarray, batch: int) -> dict:
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    answers = np.concatenate([steps.run(x)[0] for x in batches])
    for _ in range(5 if batch == 1 else 25):
        total = {False: 0.0, True: 0.0}
        for x in batches:
            for forced in (False, True):
                start = time.perf_counter()
                steps.run(x, force_open=forced)
                total[forced] += time.perf_counter() - start
        for forced, value in total.items():
            seconds[forced].append(value)
    ran, forced = _macs(net, images)
    saved_macs = 1 - ran / forced
    open_, all_ = (1e3 * median(seconds[f]) / len(images) for f in (False, True))
    saved_time = 1 - open_ / all_
    return {
        "error": 100 * float((answers.argmax(1) != labels).mean()),
        "macs": ran,
        "macs_forced": forced,
        "ms_an_image": open_,
        "ms_an_image_forced": all_,
        "saved_macs": saved_macs,
        "saved_time": saved_time,
        "ratio": saved_time / saved_macs if saved_macs else float("nan"),
    }


def _macs(net: PathNet, images: np.ndarray) -> tuple[float, float]:
    """Compute the mean MACs per image, with gates that decide and with all gates open."""
    counted = macs_by_node(net, None, size=images.shape[-1])
    trace = pp.Trace()
    with torch.inference_mode():
        for x in torch.from_numpy(images).split(64):
            net(x, trace=trace)
    reached: dict[str, float] = {}
    opened: dict[tuple[str, str], float] = {}
    for switch, label, at, through in trace.gates:
        key = f"{switch}:{label}"
        reached[key] = reached.get(key, 0.0) + float(at.sum())
        opened[switch, label] = opened.get((switch, label), 0.0) + float(through.sum())
    shares: dict[str, float] = {key: value / len(images) for key, value in reached.items()}
    for step in net.plan(None):
        for loop in step.loops:
            share = opened[step.node.name, loop.label] / len(images) if loop.gate is not None else 1.0
            shares |= dict.fromkeys(loop.nodes, share)
    return sum(n * shares.get(name, 1.0) for name, n in counted.items()), float(sum(counted.values()))


def _static(
    net: PathNet, text: str, images: np.ndarray, labels: np.ndarray, batch: int, name: str | None = None
) -> dict:
    folder = PLACE / "static"
    stem = name or text
    file = folder / f"{stem}.onnx"
    if not file.is_file():
        export_path(net, text, folder, "onnx", name=stem)
    session = make_session(str(file), THREADS)
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    answers = np.concatenate([session.run(None, {"images": x})[0] for x in batches])
    totals = []
    for _ in range(5 if batch == 1 else 25):
        start = time.perf_counter()
        for x in batches:
            session.run(None, {"images": x})
        totals.append(time.perf_counter() - start)
    return {
        "name": stem,
        "error": 100 * float((answers.argmax(1) != labels).mean()),
        "macs": pp.cost(net, text, images.shape[-1]).macs,
        "ms_an_image": 1e3 * median(totals) / len(images),
    }
