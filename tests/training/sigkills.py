"""SIGKILL at random moments from a run's start to its end: ``sigkills.py FOLDER SEED KIND=KILLS …``, for test_sigkills.

A run is started in a process of its own, and that process alone gets SIGKILL after a random part of the time that an
undisturbed run takes: while it writes its recipe, draws weights, steps, validates, writes a checkpoint or its result.
It is resumed at once, while data workers or runs of a sweep may still be alive. In the end every file is compared, byte
by byte but for times, with those of the undisturbed run, and no process may be left.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tiny import images, tiny

from polypath.training.loop import resume, train
from polypath.training.objectives import Whole
from polypath.training.path_objectives import PathWise
from polypath.training.recipe import Recipe
from polypath.training.sweep import sweep

LATE = ("torch._dynamo", "torch.utils.tensorboard", "timm.utils.model_ema", "matplotlib.figure", "torch.utils.data")
OTHERS = ("events.", "times.jsonl", "environment.json", "log.txt")
"""Files that say when and how a run was made."""
PATIENCE = 30.0  # seconds for what a killed process leaves behind


@dataclass(frozen=True)
class Kind:
    """Start the run in a folder, or resume it; called in a new process."""

    act: Callable[[Path], object]


def single(recipe: Recipe, loaded: bool = True) -> Kind:
    def act(path: Path) -> None:
        data = images() if loaded else None
        if (path / "recipe.json").is_file():
            resume(path, data=data, quiet=True)
        else:
            train(recipe, path, data=data, quiet=True)

    return Kind(act)


def kinds(folder: Path) -> dict[str, Kind]:
    settings: dict[str, Any] = {"epochs": 3, "checkpoint_steps": 2}
    plain = tiny(**settings, objective=Whole(), optim__kind="adam")
    pictures = {"data__source": str(pictures_in(folder)), "data__streaming": True, "data__workers": 2, "data__size": 8}
    pictures |= {"data__channels": 1, "data__validation": 12, "data__train_images": None, "model__num_classes": 3}
    grid = tiny(epochs=3, data__train_images=64, model__scale=2)
    return {
        "plain": single(plain),
        "drop-path": single(tiny(**settings, ema=0.9)),
        "path-wise": single(tiny(**settings, objective=PathWise(phase_epochs=1, rate=0.2))),
        "streaming": single(tiny(**settings, **pictures, batch_size=16), loaded=False),
        "sweep": Kind(lambda path: sweep(grid, range(2), None, path, workers=2, retries=0)),
    }


def pictures_in(folder: Path) -> Path:
    source = folder / "pictures"
    draw = random.Random(0)
    for label in "abc":
        (source / label).mkdir(parents=True)
        for i in range(30):
            Image.frombytes("L", (8, 8), draw.randbytes(64)).save(source / label / f"{i:02}.png")
    return source


def started(kind: Kind, path: Path) -> int:
    """Start or resume the run in a new process, which leads a session; returns its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        kind.act(path)
        status = 0
    finally:
        os._exit(status)


def finished(pid: int) -> None:
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(f"a run ended with status {status}")


def survivors(session: int) -> list[str]:
    """Processes of a session that are alive."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, its = rest.split()[:4]
        if int(its) == session and state != "Z":
            found.append(name)
    return found


def contents(path: Path) -> dict[str, Any]:
    """Every file of a folder, without times and paths."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.is_dir() or name.startswith("logs/") or file.name.startswith(OTHERS):
            continue
        found[name] = json.loads(file.read_bytes()) if file.suffix == ".json" else file.read_bytes()
        results = [found[name]] if file.name == "summary.json" else []
        if file.name == "table.json":  # of a sweep
            results = found[name]["results"].values()
        for result in results:
            for key in ("seconds", "run_dir"):
                result.pop(key)
        if file.parent.name == "checkpoints" and file.suffix == ".json":
            found[name].pop("checksum")
            found[name]["state"].pop("seconds")
    return found


def compare(calm: Path, killed: Path) -> int:
    """How many files are equal.

    Raises:
        SystemExit: one that is not, or that only one has.
    """
    a, b = contents(calm), contents(killed)
    if a.keys() != b.keys():
        raise SystemExit(f"other files: {sorted(a.keys() ^ b.keys())}")
    if other := [name for name in a if a[name] != b[name]]:
        raise SystemExit(f"other contents: {other}")
    return len(a)


def undergo(name: str, kind: Kind, folder: Path, kills: int, draw: random.Random) -> str:
    """Kill runs of a kind this many times; returns the observations."""
    calm, begun = folder / "calm", time.monotonic()
    finished(started(kind, calm))
    length = time.monotonic() - begun
    sessions, done, runs, files = [], 0, 0, 0
    while done < kills or runs == 0:
        path = folder / f"run{runs}"
        while True:
            pid = started(kind, path)
            if done == kills:
                finished(pid)
                break
            time.sleep(draw.uniform(0.0, length))
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):  # it was faster
                finished(pid)
                break
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            sessions.append(pid)
            done += 1
        files += compare(calm, path)
        runs += 1
    patience = time.monotonic() + PATIENCE
    while alive := [found for session in sessions for found in survivors(session)]:
        if time.monotonic() > patience:
            raise SystemExit(f"processes are left: {alive}")
        time.sleep(0.1)
    shutil.rmtree(folder)
    return f"{name}: {done} kills, {runs} runs, {files} files equal to the bit"


def main(folder: Path, seed: int, asked: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    images()
    for module in LATE:  # modules that a run imports late: import them once here, not in every process
        importlib.import_module(module)
    known = kinds(folder)
    for text in asked:
        name, _, kills = text.partition("=")
        begun = time.monotonic()
        said = undergo(name, known[name], folder / name, int(kills), random.Random(f"{name} {seed}"))
        print(f"{said} (seed {seed}, {time.monotonic() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
