"""Paths of a Polypath bundle. The environment variable BUNDLE is its folder; the default is Polypath's own bundle.

    BUNDLE=mine polypath bench anytime --method benchmarks/methods/bundle.py --data.source DIR

The environment variable PFLOP is the cost of its training. A bundle does not contain this number; `summary.json` of the
run does.
"""

import os

import polypath as pp
from polypath.deploy.bundle import rank

bundle = pp.Bundle.open(os.environ.get("BUNDLE") or None)
name = bundle.name
pflop = float(os.environ["PFLOP"]) if "PFLOP" in os.environ else None
files = [bundle.folder]


def options(folder):
    predictor = pp.AnytimePredictor(bundle, os.environ.get("RUNTIME", "auto"), threads=1)

    def by(path):
        return lambda image: predictor.run_path(path, predictor.prepared(image))[0]

    return {path.name: by(path.name) for path in reversed(rank(bundle.paths))}
