"""Experiments by name. A lookup imports only the paper's module."""

from __future__ import annotations

import functools
import importlib

from polypath.core.checks import near
from polypath.reproduce.experiment import Experiment

PAPERS: dict[str, tuple[str, ...]] = {
    "crescendonet": ("polypath.reproduce.papers.crescendonet",),
    "fractalnet": ("polypath.reproduce.papers.fractalnet", "polypath.reproduce.papers.suspects"),
    "dfn": (
        "polypath.reproduce.papers.dfn_fused",
        "polypath.reproduce.papers.dfn",
        "polypath.reproduce.papers.dfn_ensembles",
        "polypath.reproduce.papers.dfn_imagenet",
    ),
    "gunn": ("polypath.reproduce.papers.gunn", "polypath.reproduce.papers.collapse"),
    "drnn": (
        "polypath.reproduce.papers.drnn",
        "polypath.reproduce.papers.drnn_gates",
        "polypath.reproduce.papers.drnn_training",
        "polypath.reproduce.papers.drnn_cost",
    ),
}
"""The modules of each paper. Each module has a tuple ``EXPERIMENTS``."""


def get_experiment(name: str) -> Experiment:
    """Return the experiment called ``PAPER/TABLE``.

    Raises:
        ValueError: there is no such experiment. The message suggests similar names.
    """
    plain = name.strip().lower().replace("_", "-")
    paper, _, table = plain.partition("/")
    if paper in PAPERS and table in (known := _of_paper(paper)):
        return known[table]
    names = list_experiments()
    same = [n for n in names if n.endswith(f"/{table or paper}")]  # the name has no paper or the wrong one
    if close := list(dict.fromkeys([*near(plain, names), *same])):
        raise ValueError(f"unknown experiment {name!r}; did you mean {' or '.join(close)}?")
    of_paper = [n for n in names if n.startswith(f"{paper}/")] or names
    raise ValueError(f"unknown experiment {name!r}; known experiments: {', '.join(of_paper)}")


def list_experiments(paper: str | None = None) -> list[str]:
    """Return the names of all experiments, or of one paper's."""
    papers = PAPERS if paper is None else [paper]
    return [experiment.name for p in papers for experiment in _of_paper(p).values()]


@functools.cache
def _of_paper(paper: str) -> dict[str, Experiment]:
    known: dict[str, Experiment] = {}
    for module in PAPERS[paper]:
        for experiment in importlib.import_module(module).EXPERIMENTS:
            own, _, table = experiment.name.partition("/")
            if own != paper or table in known:
                raise RuntimeError(f"{module}: the name {experiment.name!r} must begin with '{paper}/' and be unique")
            known[table] = experiment
    return known
