"""Common code of the benchmarks: the machine, its precisions, alternating measurements, and memory.

Tasks are measured alternately (A, B, A, B, …), so drift affects all tasks equally. If turns are short, the first turn
is not measured. A time is the median over the turns, with the fastest and the slowest turn. The number of turns follows
from a budget of seconds, and is at least two. A turn of a short task is a burst of calls, and its time is their mean.
The reason is that runtimes leave threads spinning for a while, which would slow the next task's first calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from polypath.profiling.latency import interleaved

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
LEAST, MOST = 2, 15
BURST = 0.3  # seconds of calls in a turn of a short task
GPU_BURST = 0.05  # shorter, since a GPU leaves no threads spinning


@cache
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def precisions() -> dict[str, str]:
    """Return, for each precision, the reason why it is not measured here, or an empty text if it is measured."""
    if device().type == "cuda":
        return dict.fromkeys(DTYPES, "")
    times = {name: _conv_seconds(dtype) for name, dtype in DTYPES.items()}
    factor = times["bf16"] / times["float32"]
    if factor > 1.0:
        said = (
            f"not measured: this processor ({torch.backends.cpu.get_cpu_capability()}) has no bf16 instructions; "
            f"a conv in bf16 took {factor:.1f} times as long as in float32"
        )
        return {"float32": "", "bf16": said}
    return dict.fromkeys(DTYPES, "")


def measured_precisions() -> list[str]:
    return [name for name, reason in precisions().items() if not reason]


def _conv_seconds(dtype: torch.dtype) -> float:
    x, w = (
        torch.randn(s, dtype=dtype).to(memory_format=torch.channels_last) for s in ((4, 64, 16, 16), (64, 64, 3, 3))
    )
    with torch.inference_mode():
        return min(interleaved({"": lambda: F.conv2d(x, w, padding=1)}, 5, 2)[""])


def batches(*wanted: int) -> list[int]:
    """Return the batch sizes to measure: those given, and on a GPU also 256."""
    return [*wanted, *([256] if device().type == "cuda" else [])]


def autocast(precision: str) -> Any:
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16")


def by_turns(tasks: Mapping[str, Callable[[], Any]], seconds: float = 10.0, most: int = MOST) -> dict[str, dict]:
    """Measure the time of each task, ``{median_s, min_s, max_s, turns}``, over as many turns as fit into
    ``seconds``."""
    first = {name: row[0] for name, row in interleaved(tasks, 1, 0, device()).items()}
    burst = GPU_BURST if device().type == "cuda" else BURST
    calls = {name: max(1, int(burst / took)) for name, took in first.items()}
    turn = sum(calls[name] * took for name, took in first.items())
    turns = max(LEAST, min(most, int(seconds / turn)))
    # in long turns, warm-up is a small part, so the first turn is measured, too
    long = 2 * turn > seconds and max(calls.values()) == 1
    bursts = {name: partial(_repeat, task, calls[name]) for name, task in tasks.items()}
    times = interleaved(bursts, turns - long, 0, device())
    rows = {name: [first[name]] * long + [took / calls[name] for took in row] for name, row in times.items()}
    return {
        name: {"median_s": median(row), "min_s": min(row), "max_s": max(row), "turns": turns}
        for name, row in rows.items()
    }


def in_random_order(tasks: Sequence[Callable[[], Any]], turns: int, warm_ups: int = 3) -> np.ndarray:
    """Run all tasks in each turn, in random order, so that no task always follows the same other task. Return
    milliseconds ``(turns, tasks)``, without those of the warm-ups."""
    times, draw = np.empty((warm_ups + turns, len(tasks))), np.random.default_rng(0)
    for row in times:
        for i in draw.permutation(len(tasks)):
            start = time.perf_counter()
            tasks[i]()
            row[i] = 1e3 * (time.perf_counter() - start)
    return times[warm_ups:]


def _repeat(task: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        task()


def images(batch: int, size: int = 32, *, channels_last: bool = True, seed: int = 0) -> Tensor:
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(device())
    return x.to(memory_format=torch.channels_last) if channels_last else x


def labels(batch: int) -> Tensor:
    return torch.randint(10, (batch,), generator=torch.Generator().manual_seed(0)).to(device())


class Step:
    """A training step of a network: forward pass, cross-entropy, backward pass, SGD with momentum (foreach)."""

    def __init__(self, net: nn.Module, batch: int, precision: str = "float32", channels_last: bool = True) -> None:
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.train().to(device()).to(memory_format=form)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, foreach=True)
        self.x, self.y = images(batch, channels_last=channels_last), labels(batch)
        self.precision = precision

    def loss(self, **options: Any) -> Tensor:
        with autocast(self.precision):
            return F.cross_entropy(self.net(self.x, **options).float(), self.y)

    def __call__(self, **options: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(**options).backward()
        self.optimizer.step()


def held_bytes(forward: Callable[[], Any], net: nn.Module) -> int:
    """Count the bytes that a forward pass saves for its backward pass, without parameters. Each storage counts once."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), storage
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    total = sum(size for size, _ in kept.values())
    del out
    return total


def synchronize() -> None:
    """Wait until the accelerator has finished, if there is one."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def device_peak(task: Callable[[], Any]) -> int | None:
    """Return the peak memory of the accelerator while ``task`` ran, in bytes; None on a CPU."""
    if device().type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    task()
    synchronize()
    return torch.cuda.max_memory_allocated()


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show(title: str, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    """Print rows as a table. ``columns`` maps each key of the rows to the format of its values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for i, key in enumerate(columns):
        table.add_column(key, justify="left" if i == 0 else "right")
    for row in rows:
        cells = (format(row[key], spec) if row.get(key) is not None else "" for key, spec in columns.items())
        table.add_row(*cells)
    Console(width=140).print(table)
