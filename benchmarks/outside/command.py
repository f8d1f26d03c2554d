"""The command ``python -m benchmarks outside``: its options, and all steps from images to the result."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.outside.figure import front_figure
from benchmarks.outside.methods import WIDTH, Method, data_of, methods
from benchmarks.outside.plan import Planned, plan, table
from benchmarks.outside.result import collect
from benchmarks.outside.training import run_folder, trained, tuned
from benchmarks.trained import PLACE, cifar10
from polypath.analysis.plots.style import save_figure
from polypath.core.checks import check, number, whole
from polypath.data.config import DataConfig
from polypath.data.sources import load_images
from polypath.deploy.bundle import Bundle
from polypath.storage.files import write_json
from polypath.worth.deployed import RUNTIMES, runtime_name

SHIPPED = "shipped"
TRIAL = 0.1


def run(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Run the command with these arguments. Return its result, or None with ``--plan``.

    Raises:
        ValueError: an option is illegal, or the folder contains other runs.
        ImportError: the runtime is not installed.
        SystemExit: an argument is malformed, or is ``--help``.
    """
    asked = parser().parse_args(arguments)
    config = data_of(asked.data)
    known = methods(config, check("--width", asked.width, whole(4)))
    names = asked.only.split(",") if asked.only else list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--only: {unknown[0]!r}: must be one or more of {', '.join(known)}")
    check("--pflop", asked.pflop, number(above=0))
    check("--trial", asked.trial, number(above=0, high=1))
    seeds = range(check("--seeds", asked.seeds, whole(1)))
    if asked.plan:
        data = load_images(config)
        chosen = {name: known[name] for name in names}
        print(*table(plan(chosen, asked.pflop, asked.trial, data), asked.pflop, len(seeds), data), sep="\n")
        return None
    beside = {_name(place): Bundle.open(None if place == SHIPPED else place) for place in asked.beside}
    return measure(
        known,
        names,
        config,
        Path(asked.folder),
        pflop=asked.pflop,
        trial=asked.trial,
        seeds=seeds,
        runtime=None if asked.runtime == "none" else asked.runtime,
        beside=beside,
    )


def measure(
    known: Mapping[str, Method],
    names: Sequence[str],
    config: DataConfig,
    folder: Path,
    *,
    pflop: float,
    seeds: Sequence[int],
    trial: float = TRIAL,
    runtime: str | None = "auto",
    beside: Mapping[str, Bundle] | None = None,
) -> dict[str, Any]:
    """Train the methods ``names``, then score and time all methods that are finished in ``folder``.

    Args:
        known: all methods by name.
        pflop: training PFLOP of each method and seed, without tuning.
        trial: see :func:`benchmarks.outside.plan.plan`.
        runtime: as for :func:`polypath.worth.deployed.runtime_name`.
        beside: bundles to time and score as well, by name.
    """
    runtime, data, made = runtime_name(runtime), load_images(config), []
    for planned in plan(known, pflop, trial, data):
        if planned.method in names or _finished(folder, planned, known[planned.method], seeds):
            best = tuned(folder, planned, data, config, seeds[0])
            made.append((planned, best, trained(folder, planned, data, best["lr"], seeds)))
    result = collect(folder, known, made, data, config, pflop=pflop, seeds=seeds, runtime=runtime, beside=beside or {})
    write_json(folder / "result.json", result)
    save_figure(front_figure(result), folder, "figure")
    return result


def _finished(folder: Path, planned: Planned, method: Method, seeds: Sequence[int]) -> bool:
    """Return whether every network of the method has been trained with every seed."""
    every = [Planned(planned.method, network, 1, 1, 0.0) for network in method.networks]
    return all((run_folder(folder, one, seed) / "summary.json").is_file() for one in every for seed in seeds)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser("python -m benchmarks outside", description=__doc__, allow_abbrev=False)
    made.add_argument(
        "--data", default=cifar10(), help="folder of CIFAR-10, or its name on the Hub (default %(default)s)"
    )
    made.add_argument(
        "--pflop", type=float, default=0.02, help="training PFLOP per method and seed (default %(default)s)"
    )
    made.add_argument("--seeds", type=int, default=1, help="number N of seeds; they are 0 to N-1 (default %(default)s)")
    made.add_argument(
        "--only", default="", help="methods to train, separated by commas; the result has all finished methods"
    )
    made.add_argument(
        "--width",
        type=int,
        default=WIDTH,
        help="channels of the ResNets; MSDNet's scale in proportion (default %(default)s)",
    )
    made.add_argument(
        "--trial",
        type=float,
        default=TRIAL,
        help="length of a learning rate trial, as a share of a training (default %(default)s)",
    )
    made.add_argument(
        "--folder",
        default=str(PLACE / "outside"),
        help="folder of the runs; runs in an existing folder are continued (default %(default)s)",
    )
    made.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", *RUNTIMES, "none"),
        help="runtime in which times are measured (default %(default)s)",
    )
    made.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="BUNDLE",
        help=f"folder of a bundle to score and time as well, or {SHIPPED!r}; may be repeated",
    )
    made.add_argument(
        "--plan",
        action="store_true",
        help="only list the planned trainings, with their PFLOP and their time on this machine",
    )
    return made


def _name(place: str) -> str:
    return place if place == SHIPPED else Path(place).resolve().name
