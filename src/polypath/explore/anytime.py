"""A bundle and its predictor as the page's subject. For a path with gates, the loops that run are also shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from polypath.core.paths import Paths
from polypath.core.wiring import Join
from polypath.deploy import AnytimePredictor, BudgetError, Bundle
from polypath.deploy.budget import Spent
from polypath.deploy.decoder import decoder
from polypath.explore.loops import loops_taken
from polypath.explore.subject import PathFacts, Run
from polypath.profiling.cores import cores

DECODING_MS = 5000.0  # time limit for decoding an image


def open_subject(
    folder: Path | None = None, runtime: str = "auto", profile: Literal["stored", "fresh"] | float = "stored"
) -> AnytimeSubject:
    """Open the bundle, finished run or saved network in ``folder``; None means the pretrained bundle of this package.

    Args:
        runtime, profile: as for :class:`~polypath.deploy.AnytimePredictor`.

    Raises:
        ValueError: the folder has none of these, or the runtime cannot run the bundle.
        ImportError: the runtime is not installed.
    """
    if folder is not None and (folder / "recipe.json").is_file():
        if not (folder / "model").is_dir():
            raise ValueError(f"{folder}: this run is not finished; continue it with `polypath resume {folder}`")
        bundle = Bundle.open(folder / "model")
        return AnytimeSubject(AnytimePredictor(bundle, runtime, profile=profile), folder.resolve().name)
    return AnytimeSubject(AnytimePredictor(Bundle.open(folder), runtime, profile=profile))


class AnytimeSubject:
    """A subject that runs a bundle with ``predictor``. Making the subject measures the times for one image."""

    def __init__(self, predictor: AnytimePredictor, title: str | None = None) -> None:
        bundle = predictor.bundle
        self.predictor, self.title = predictor, title or bundle.name
        self.classes, self.channels = tuple(bundle.classes), bundle.preparation.channels
        self._nets = {path.name: bundle.networks[path.network].net for path in bundle.paths}
        self._choices = {path.name: self._nets[path.name].paths(path.text) for path in bundle.paths}
        predictor.profile(1)
        blank = np.zeros((1, *bundle.preparation.size, self.channels), np.uint8)
        for name in self._choices:
            if self._gated(name):  # warms up torch, for which the first image would have to wait
                self._followed(blank, name)

    @property
    def busy(self) -> bool:
        return self.predictor.latencies(1).origin == "busy"

    def measure(self) -> None:
        self.predictor.profile(1, fresh=True)

    @property
    def machine(self) -> str:
        runtime = self.predictor.runtime
        return f"{runtime.name} {runtime.version.partition('+')[0]}, {runtime.device}, {cores()} cores"

    @property
    def paths(self) -> Mapping[str, PathFacts]:
        times = self.predictor.profile(1)
        return {
            path.name: PathFacts(
                name=path.name,
                wiring=self._nets[path.name].wiring,
                choice=self._choices[path.name],
                error=path.error,
                test_error=path.test_error,
                macs=path.macs,
                p50_ms=times[path.name].p50,
                p99_ms=times[path.name].p99,
                precision="bf16" if self.predictor.precision == "bf16" else path.precision,
            )
            for path in self.predictor.bundle.paths
        }

    def choose(self, budget_ms: float) -> str | None:
        try:
            name = self.predictor.choose(budget_ms)
        except BudgetError:
            return None
        paths = self.paths
        for path in paths.values():  # among equally accurate paths, prefer one whose gates can be shown
            if self._gated(path.name) and path.p99_ms <= budget_ms and path.error == paths[name].error is not None:
                return path.name
        return name

    def run(self, image: bytes, budget_ms: float) -> Run | None:
        name = self.choose(budget_ms)
        if name is None:
            return None
        spent = Spent(DECODING_MS, time.perf_counter())  # separate from the budget, which is for the network alone
        preparation, limits = self.predictor.bundle.preparation, self.predictor.limits
        pixels = decoder().decode(image, preparation, limits, spent)[None]
        if self._gated(name):
            return self._followed(pixels, name)
        try:
            answer = self.predictor.predict(pixels, budget_ms)
        except BudgetError:  # another process used the processor in the meantime
            return None
        choice = self._choices[answer.path]
        return Run(path=answer.path, probabilities=answer.probabilities[0], ms=answer.ms, choice=choice)

    def _gated(self, name: str) -> bool:
        """Return whether gates decide any part of the path."""
        if self.predictor.bundle.path(name).precision != "f32":  # torch would compute a different answer
            return False
        choice = self._choices[name]
        alive = self._nets[name].wiring.alive(choice)
        return any(isinstance(node, Join) and node.dynamic(choice) for node in alive)

    def _followed(self, pixels: np.ndarray, name: str) -> Run:
        """Run the path in torch, even with another runtime, because only torch shows the decisions of the gates."""
        import torch

        from polypath.core.execute import Trace
        from polypath.profiling.threads import torch_threads

        net, choice, trace = self._nets[name], self._choices[name], Trace()
        begin = time.perf_counter()
        with torch_threads(self.predictor.threads), torch.inference_mode():
            logits = net(torch.from_numpy(self.predictor.prepared(pixels)), paths=choice, trace=trace)
            temperature = self.predictor.bundle.path(name).temperature
            probabilities = (logits.float() / temperature).softmax(1)[0].numpy()
        ms = 1e3 * (time.perf_counter() - begin)
        taken = loops_taken(net.wiring, trace)
        loops = []
        for switch, label in taken.items():
            labels = net.wiring.joins[switch].labels
            loops.append((switch.rpartition(".")[0], labels.index(label), len(labels) - 1))
        ran = Paths.of(net.wiring, {**choice, **{switch: (label,) for switch, label in taken.items()}})
        return Run(path=name, probabilities=probabilities, ms=ms, choice=ran, loops=tuple(loops))
