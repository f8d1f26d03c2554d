"""GUNN-15 by one buffer in place against the straightforward version (Eq. 4, concatenating), and its memory.

The memory is what a forward keeps for its backward, and of whole processes the largest resident size in training.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from unittest import mock

import torch

import polypath as pp
from benchmarks import roof
from benchmarks.harness import Step, by_turns, device, held_bytes, images, show
from benchmarks.models import straightforward
from benchmarks.startup import resident

BATCH, TRAIN_BATCH, SECONDS = 64, 64, 25.0


def run() -> dict:
    last = torch.channels_last
    forms = {
        "concatenating": straightforward("gunn15")().eval(),
        "concatenating, channels-last": straightforward("gunn15")().eval().to(memory_format=last),  # pyright: ignore
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
        "concatenating": Step(straightforward("gunn15")(), TRAIN_BATCH, channels_last=False),
        "concatenating, channels-last": Step(straightforward("gunn15")(), TRAIN_BATCH),
        "Algorithm 1": Step(pp.create_model("gunn15", seed=0), TRAIN_BATCH, channels_last=False),
        "Algorithm 1, channels-last": Step(pp.create_model("gunn15", seed=0), TRAIN_BATCH),
    }
    training = by_turns(steps, SECONDS, 3)
    held = {
        name: held_bytes(Step(make(), 8, channels_last=False).loss, make()) / 8
        for name, make in {
            "concatenating": straightforward("gunn15"),
            "gunn15": lambda: pp.create_model("gunn15", seed=0),
            "sunn15": lambda: pp.create_model("sunn15", seed=0),
        }.items()
    }
    process = {}
    if device().type == "cpu":  # what an allocator keeps differs from process to process
        sizes = [{name: resident(TRAIN.format(name=name)) for name in ("gunn15", "sunn15")} for _ in range(3)]
        process = {name: median(size[name] for size in sizes) for name in sizes[0]}
    best = roof.seconds(forms["in place"], BATCH)
    result = {
        "batch_size": BATCH, "inference": inference, "training": training, "held_bytes_per_image": held,
        "process_peak_bytes": process,
        "inference_factor": _best(inference, "concat") / min(inference[n]["median_s"] for n in ("in place", "fused")),
        "training_factor": _best(training, "concat") / _best(training, "Algorithm"),
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
    print({key: round(result[key], 3) for key in ("inference_factor", "training_factor", "held_over_sunn")})
    return result


def _alone() -> torch.nn.Module:
    """Fused, each segment with a product of its own."""
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
