"""Compares the speed and memory of GUNN-15, which uses one in-place buffer, and of the straightforward version (Eq. 4,
concatenating).

The straightforward version runs in torch's default layout (as written) and in channels-last, its faster form. Two kinds
of memory are measured: the bytes that a forward pass saves for its backward pass, and the peak resident size of
training processes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from unittest import mock

import torch

import polypath as pp
from benchmarks import roof
from benchmarks.harness import Step, by_turns, device, held_bytes, images, show
from benchmarks.models import as_convs, straightforward
from benchmarks.startup import resident

BATCH, SECONDS, STEP_SECONDS = 64, 60.0, 110.0


def run() -> dict:
    last = torch.channels_last
    forms = {
        "concatenating": straightforward("gunn15")().eval(),
        "concatenating, channels-last": straightforward("gunn15")().eval().to(memory_format=last),
        "in place": pp.create_model("gunn15", seed=0).eval(),
        "fused, segments alone": _alone(),
        "fused": pp.fuse(pp.create_model("gunn15", seed=0).eval()),
    }

    def infer(net: torch.nn.Module, x: torch.Tensor) -> None:
        with torch.inference_mode():
            net(x)

    tasks = {}
    for name, net in forms.items():
        x = images(BATCH, channels_last="channels-last" in name or "fused" in name)
        tasks[name] = partial(infer, net.to(device()), x)
    inference = by_turns(tasks, SECONDS)
    steps = {
        "concatenating": _step(straightforward("gunn15")(), channels_last=False),
        "concatenating, channels-last": _step(straightforward("gunn15")()),
        "Algorithm 1": _step(pp.create_model("gunn15", seed=0), channels_last=False),
        "Algorithm 1, 1×1 convs as convs": _step(as_convs(pp.create_model("gunn15", seed=0)), channels_last=False),
        "Algorithm 1, channels-last": _step(pp.create_model("gunn15", seed=0)),
    }
    training = by_turns(steps, STEP_SECONDS, 3)
    held = {
        name: held_bytes(Step(make(), 8, channels_last=False).loss, make()) / 8
        for name, make in {
            "concatenating": straightforward("gunn15"),
            "gunn15": lambda: pp.create_model("gunn15", seed=0),
            "sunn15": lambda: pp.create_model("sunn15", seed=0),
        }.items()
    }
    process = {}
    if device().type == "cpu":  # several processes, since allocators keep different amounts of memory
        sizes = [{name: resident(TRAIN.format(name=name)) for name in ("gunn15", "sunn15")} for _ in range(3)]
        process = {name: median(size[name] for size in sizes) for name in sizes[0]}
    best = roof.seconds(forms["in place"], BATCH)
    result = {
        "batch_size": BATCH, "inference": inference, "training": training, "held_bytes_per_image": held,
        "process_peak_bytes": process,
        "inference_factor": _best(inference, "concat") / min(inference[n]["median_s"] for n in ("in place", "fused")),
        "training_factor": _best(training, "concat") / _best(training, "Algorithm"),
        "inference_factor_as_written": inference["concatenating"]["median_s"] / inference["fused"]["median_s"],
        "training_factor_as_written": training["concatenating"]["median_s"] / training["Algorithm 1"]["median_s"],
        "roof_s": best, "inference_factor_of_roof": _best(inference, "concat") / best,
        "training_factor_of_roof": _best(training, "concat") / (3 * best),
        "held_over_sunn": held["gunn15"] / held["sunn15"],
    }  # fmt: skip
    for title, times in (("inference", inference), ("training step", training)):
        show(
            f"GUNN-15, {title}, batch {BATCH}",
            [{"way": n, **t} for n, t in times.items()],
            {"way": "", "median_s": ".3f"},
        )
    print({key: round(value, 3) for key, value in result.items() if "factor" in key or key == "held_over_sunn"})
    return result


def _step(net: torch.nn.Module, *, channels_last: bool = True) -> Callable[[], None]:
    return Step(net, BATCH, channels_last=channels_last)


def _alone() -> torch.nn.Module:
    """Return the fused network, with a separate matrix product for each segment."""
    with mock.patch("polypath.fusion.gunn.WIDE", 1):
        return pp.fuse(pp.create_model("gunn15", seed=0).eval())


TRAIN = """
import polypath as pp
from benchmarks import roof
from benchmarks.harness import Step
Step(pp.create_model("{name}", seed=0), 32)()
"""


def _best(times: dict, word: str) -> float:
    return min(time["median_s"] for name, time in times.items() if name.startswith(word))
