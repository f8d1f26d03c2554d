"""Kill runs again and again, resume each time: ``kills.py FOLDER CASE=KILLS …``, a program for test_resume.

Processes are forked from this one, which has imported everything and loaded the images. Each step of a run writes a
byte to a pipe; after a random number of them and a random wait, every process of the run gets SIGKILL.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tiny import equal, images, left, tiny

from polypath.families.recursive import RecursiveResNet
from polypath.training.engine import Engine
from polypath.training.loop import resume, train
from polypath.training.path_objectives import PathWise, TargetRate
from polypath.training.recipe import Recipe

LATE = ("torch._dynamo", "torch.utils.tensorboard", "timm.data.mixup", "timm.utils.model_ema", "matplotlib.figure")
COMMON = {"epochs": 4, "data__train_images": 160, "checkpoint_steps": 1, "keep": 2}
GATED = RecursiveResNet(blocks=(1, 2), loops=(1, 3), width=4, in_chans=1)
CASES: dict[str, Callable[[], tuple[Recipe, int]]] = {
    "droppath": lambda: (tiny(**{**COMMON, "epochs": 12}, ema=0.9, mixup=0.2), 1),
    "pathwise": lambda: (tiny(**COMMON, objective=PathWise(rate=0.2), optim__kind="adam"), 1),
    "gates": lambda: (tiny(**COMMON, model=GATED, objective=TargetRate(target=0.7)), 1),
    "two": lambda: (tiny(**COMMON, accumulate=2), 2),
}


def attempt(recipe: Recipe | None, folder: Path, processes: int, pipe: int) -> list[int]:
    """Start or resume the run in forked processes; their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(processes):
        if pid := os.fork():
            pids.append(pid)
            continue
        status = 1
        try:
            if processes > 1:
                where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
                os.environ.update({name: str(value) for name, value in (where | {"WORLD_SIZE": processes}).items()})
            telling(pipe if rank == 0 else None)
            if recipe is not None and not folder.exists():
                train(recipe, folder, data=images(), quiet=True)
            else:
                resume(folder, data=images(), quiet=True)
            status = 0
        except SystemExit as leave:  # told to stop
            status = int(leave.code or 0)
        finally:
            os._exit(status)
    return pids


def telling(pipe: int | None) -> None:
    """Let each step write a byte."""
    step = Engine.step

    def told(self: Engine, *args, **kwargs) -> int:
        if pipe is not None:
            os.write(pipe, b".")
        return step(self, *args, **kwargs)

    Engine.step = told


def disturb(pids: list[int], pipe: int, number: signal.Signals, draw: random.Random) -> None:
    """Send a signal to all processes of a run, a few steps and a moment after its start."""
    for _ in range(draw.randint(1, 2)):
        if not os.read(pipe, 1):
            raise SystemExit("the run ended by itself")
    time.sleep(draw.uniform(0.0, 0.008))
    for pid in draw.sample(pids, len(pids)):
        os.kill(pid, number)


def undergo(recipe: Recipe, run: Path, processes: int, kills: int, number: signal.Signals, draw: random.Random) -> None:
    """Train to the end in spite of this many kills."""
    left_early = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}[number]
    for at in range(kills + 1):
        out, into = os.pipe()
        pids = attempt(recipe, run, processes, into)
        os.close(into)
        if at < kills:
            disturb(pids, out, number, draw)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        os.close(out)
        if set(statuses) != {left_early if at < kills else 0}:
            raise SystemExit(f"attempt {at + 1}: status {statuses}")


def check(case: str, folder: Path, kills: int) -> str:
    """Train undisturbed and in spite of the kills; what was compared.

    Raises:
        SystemExit: what is left of the two runs differs.
    """
    number = signal.SIGTERM if case.endswith("-term") else signal.SIGKILL
    recipe, processes = CASES[case.removesuffix("-term")]()
    undergo(recipe, folder / "calm", processes, 0, number, random.Random())
    undergo(recipe, folder / "killed", processes, kills, number, random.Random(case))
    (a, rows), (b, others) = left(folder / "calm"), left(folder / "killed")
    if rows != others:
        raise SystemExit(f"{case}: other metrics")
    if a.step != b.step or not equal(a.tensors, b.tensors) or a.state["engine"] != b.state["engine"]:
        raise SystemExit(f"{case}: another state")
    shutil.rmtree(folder)
    return f"{case}: {kills} kills, {len(a.tensors)} tensors equal to the bit after step {a.step}"


def main(folder: Path, asked: list[str]) -> None:
    torch.set_num_threads(1)
    images()
    for module in LATE:  # modules that a run imports late: import them once here, not in every process
        importlib.import_module(module)
    for case, _, kills in (text.partition("=") for text in asked):
        print(check(case, folder / case, int(kills)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
