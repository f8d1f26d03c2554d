"""A classifier that answers in time: of a bundle's paths, the most accurate that is done within the budget.

    predictor = AnytimePredictor(Bundle.open())
    answer = predictor.predict(images, budget_ms=2.0)
    for better in predictor.predict_until(images, time.monotonic() + 0.02): ...
    sure = predictor.predict_confident(images, risk=0.05)

"In time" is what this machine has shown at this batch size: the 99.5th percentile of a path's times, from a short
profile on first use, which is cached, and from what is observed afterwards.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polypath.core.checks import Rule, check, number, optional
from polypath.deploy import latency_profile as profiles
from polypath.deploy.answer import Answer, Confident, averaged, check_top_k, softmax
from polypath.deploy.budget import BudgetError, check_budget
from polypath.deploy.bundle import Bundle, rank
from polypath.deploy.images import LIMITS, ImageLimits
from polypath.deploy.latency import Latencies, Timing
from polypath.deploy.runtimes import Runtime, candidates, check_options, open_runtime
from polypath.deploy.stopping import Stopping, plan_stopping
from polypath.profiling.cores import cores

LOG = logging.getLogger(__name__)
_MOMENT = Rule("a moment of time.monotonic()", number().fits)


class AnytimePredictor:
    """A bundle in a runtime; thread-safe.

    Args:
        bundle: a :class:`Bundle`, its folder, or None for the pretrained one.
        runtime: ``auto`` (the fastest of those here that can run the bundle, by a short profile), ``openvino``,
            ``onnxruntime``, ``torch``, ``torch-compiled`` or ``cuda-graphs``.
        threads: for one answer; None takes the cores that this process may use.
        precision: ``f32``, or ``bf16`` where the runtime has it.
        limits: on images that are decoded.

    Raises:
        ValueError: a damaged bundle, an unknown runtime.
        ImportError: a runtime that is not installed.
    """

    def __init__(
        self,
        bundle: Bundle | str | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        *,
        precision: str = "f32",
        limits: ImageLimits = LIMITS,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.limits, self.precision = limits, precision
        self._temperature = {path.name: path.temperature for path in self.bundle.paths}
        self._ranked = [path.name for path in rank(self.bundle.paths)]
        self._lock = threading.RLock()
        self._latencies: dict[int, Latencies] = {}
        self._stopping: dict[tuple[float, float], Stopping] = {}
        check_options(threads, precision)
        self.threads = cores() if threads is None else threads
        names = candidates(self.bundle) if runtime == "auto" else [runtime]
        if precision != "f32" and runtime == "auto":
            names = [name for name in names if name != "onnxruntime"]
        self._take_fastest(names)
        atexit.register(_closed, weakref.ref(self))

    def __repr__(self) -> str:
        used = f"{self.runtime.name}, {self.precision}, threads={self.threads}"
        return f"AnytimePredictor({self.bundle.name!r}, {len(self.bundle.paths)} paths, {used})"

    # --- answering ---------------------------------------------------------------------------------------

    def predict(
        self, images: Any, budget_ms: float | None = None, path: str | None = None, *, top_k: int | None = None
    ) -> Answer:
        """Classify images by the most accurate path that fits ``budget_ms``, or by ``path``.

        Args:
            images: uint8 ``(N, H, W, C)`` or ``(H, W, C)``, or PIL images, encoded bytes or files, one or a sequence.
            budget_ms: from this call to its return, for all images together; None takes the most accurate path.
            path: one by its name, whatever it takes; not together with a budget.
            top_k: classes that :meth:`Answer.top` gives for each image; None: its default.

        Raises:
            BudgetError: the cheapest path needs more than the budget (known before anything is decoded).
            ValueError: images or values that cannot be.
        """
        start = time.perf_counter()
        if top_k is not None:
            check_top_k(top_k, self.bundle.classes)
        if budget_ms is None:
            x = self.prepared(images)
            name = self._ranked[0] if path is None else self.bundle.path(path).name
        else:
            budget_ms = check_budget(budget_ms)
            if path is not None:
                raise ValueError(f"path {path!r} and budget_ms {budget_ms!r}: give one of them")
            count = _count(images)
            start += self._profiled(count)  # a first profile is not part of any answer
            self.choose(budget_ms, count)
            x = self.prepared(images)
            name = self.choose(budget_ms - 1e3 * (time.perf_counter() - start), len(x), of=budget_ms)
        probabilities = self._timed(name, x)
        return Answer(
            probabilities=probabilities,
            classes=self.bundle.classes,
            path=name,
            ms=1e3 * (time.perf_counter() - start),
            runtime=self.runtime.name,
            budget_ms=budget_ms,
            combined=(name,),
            top_k=top_k,
        )

    def predict_until(self, images: Any, deadline: float) -> Iterator[Answer]:
        """Better and better answers until ``deadline``, a moment of ``time.monotonic()``.

        Path after path of the bundle's ladder, averaged with earlier ones where held-out images say that this helps.
        A path that would not be done in time is not begun.

        Raises:
            ValueError: a deadline that is no number, images that cannot be.
            BudgetError: the first path would not be done in time.
        """
        start = time.perf_counter()
        check("deadline", deadline, _MOMENT)
        x = self.prepared(images)
        self.latencies(len(x))
        return self._until(x, deadline, start)

    def _until(self, x: np.ndarray, deadline: float, start: float) -> Iterator[Answer]:
        ran: dict[str, np.ndarray] = {}
        for rung in self.bundle.ladder:
            left = 1e3 * (deadline - time.monotonic())
            if not self._fits(rung.path, left, len(x)):
                if not ran:
                    raise BudgetError(max(left, 0.0), self.needs_ms(rung.path, len(x)), len(x))
                return
            ran[rung.path] = self._timed(rung.path, x)
            yield Answer(
                probabilities=averaged(ran, rung),
                classes=self.bundle.classes,
                path=rung.path,
                ms=1e3 * (time.perf_counter() - start),
                runtime=self.runtime.name,
                combined=rung.combine,
            )

    def predict_confident(
        self, images: Any, *, risk: float = 0.05, trust: float = 0.95, budget_ms: float | None = None
    ) -> Confident:
        """Stop each image at the first path that is confident enough of it.

        Args:
            risk: largest share of wrong answers among images that stop. 0.05 stops "when 95% of answers at this
                confidence are right".
            trust: probability, over the draw of held-out images, with which this holds (exact binomial bound).
            budget_ms: no further path is begun that would not be done in time.

        Raises:
            ValueError: a bundle without held-out answers, too few of them for this risk (with the number needed).
            BudgetError: the first path does not fit the budget.
        """
        start = time.perf_counter()
        stopping = self.stopping(risk, trust)
        limit = math.inf if budget_ms is None else check_budget(budget_ms)
        x = self.prepared(images)
        n = len(x)
        start += self._profiled(n)
        out = np.empty((n, len(self.bundle.classes)), np.float32)
        where, sure, rows = [""] * n, np.zeros(n, bool), np.arange(n)
        ran: dict[str, np.ndarray] = {}
        last = self.bundle.ladder[0].path
        for rung, threshold in zip(self.bundle.ladder, stopping.thresholds, strict=True):
            left = limit - 1e3 * (time.perf_counter() - start)
            if limit < math.inf and not self._fits(rung.path, left, len(rows)):
                if not ran:
                    raise BudgetError(limit, self.needs_ms(rung.path, n), n)
                break
            ran[rung.path] = self._timed(rung.path, x)
            out[rows], last = averaged(ran, rung), rung.path
            stops = out[rows].max(1) >= threshold
            sure[rows[stops]] = True
            for i in rows:
                where[i] = rung.path
            keep = ~stops
            rows, x = rows[keep], np.ascontiguousarray(x[keep])
            ran = {name: p[keep] for name, p in ran.items()}
            if not len(rows):
                break
        return Confident(
            probabilities=out,
            classes=self.bundle.classes,
            path=last,
            ms=1e3 * (time.perf_counter() - start),
            runtime=self.runtime.name,
            budget_ms=budget_ms,
            combined=tuple(dict.fromkeys(where)),
            paths=tuple(where),
            sure=sure,
            risk=risk,
            trust=trust,
        )

    def stopping(self, risk: float = 0.05, trust: float = 0.95) -> Stopping:
        """The thresholds that keep ``risk``; see :meth:`predict_confident`."""
        if (risk, trust) not in self._stopping:
            self._stopping[risk, trust] = plan_stopping(self.bundle, risk, trust)
        return self._stopping[risk, trust]

    def prepared(self, images: Any) -> np.ndarray:
        """``(N, C, H, W)`` float32, normalised, of whatever :meth:`predict` takes."""
        return self.bundle.preparation.prepared(images, self.limits)

    def run_path(self, name: str, x: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, classes)`` float32, calibrated, by one path.

        It is not timed here: a caller that times it tells :meth:`latencies`.

        Args:
            x: ``(N, C, H, W)`` float32, as :meth:`prepared` gives it.

        Raises:
            ValueError: no such path, images of another shape or type.
        """
        shape = (self.bundle.preparation.channels, *self.bundle.size)
        if x.dtype != np.float32 or x.ndim != 4 or x.shape[1:] != shape or not len(x):
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"x of shape {x.shape} and type {x.dtype}: must be float32 of shape (N, {wanted})")
        if name not in self._temperature:
            name = self.bundle.path(name).name
        return softmax(self.runtime.prepare(name, len(x))(x), self._temperature[name])

    def _timed(self, name: str, x: np.ndarray) -> np.ndarray:
        """:meth:`run_path`, its time observed where the batch size has been profiled."""
        start = time.perf_counter()
        probabilities = self.run_path(name, x)
        end = time.perf_counter()
        size = profiles.bucket(len(x))
        if (latencies := self._latencies.get(size)) is not None:
            latencies.observe(name, 1e3 * (end - start), end, full=len(x) == size)
        return probabilities

    # --- times -------------------------------------------------------------------------------------------

    def choose(self, budget_ms: float, batch: int = 1, *, of: float | None = None) -> str:
        """The most accurate path whose 99.5th percentile fits; ``of`` is the whole budget, for the error's text.

        Raises:
            BudgetError: not even the cheapest does.
        """
        latencies, now = self.latencies(batch), time.perf_counter()
        name = next((name for name in self._ranked if latencies.fits(name, budget_ms, now)), None)
        if name is None:
            cheapest = min(latency.needs for latency in latencies.paths.values())
            raise BudgetError(budget_ms if of is None else of, cheapest, batch)
        return name

    def _fits(self, path: str, left_ms: float, batch: int) -> bool:
        return self.latencies(batch).fits(path, left_ms, time.perf_counter())

    def needs_ms(self, path: str, batch: int = 1) -> float:
        """The 99.5th percentile of a path's time here, in milliseconds."""
        return self.latencies(batch).paths[path].needs

    def latencies(self, batch: int, seconds: float | None = None) -> Latencies:
        """The estimated times at a batch size, that of the next power of two; profiled where they are not known yet.

        Args:
            seconds: of a profile, as for :meth:`profile`.

        Raises:
            ValueError: a batch size below 1.
        """
        size = profiles.bucket(batch)
        if (known := self._latencies.get(size)) is not None:
            return known
        with self._lock:
            return self._latencies.get(size) or self._measure(size, seconds)

    def profile(self, batch: int = 1, *, fresh: bool = False, seconds: float | None = None) -> dict[str, Timing]:
        """Times by path at a batch size (those of the next power of two); measured where they are not known yet.

        Args:
            fresh: measure again.
            seconds: of measuring each path; None takes 1. More tell better what rarely happens: a path of 40 ms runs
                30 times in a second, and its 99th percentile is seen once in 100.

        Raises:
            ValueError: a batch size below 1, seconds that are not above 0.
        """
        size = profiles.bucket(batch)
        check("seconds", seconds, optional(number(above=0)))
        if fresh:
            with self._lock:
                self._measure(size, seconds)
        latencies = self.latencies(batch, seconds)
        return {path.name: latencies.paths[path.name].timing for path in self.bundle.paths}

    def save_profile(self) -> None:
        """Write what is known of times to the cache; done by itself when a profile is made and at exit.

        Where the paths in use have become much faster than they were measured, the others' times are too long, and a
        later session measures them anew.
        """
        with self._lock:
            now = time.perf_counter()
            self._store.save(
                {
                    batch: {name: latency.samples() for name, latency in latencies.paths.items()}
                    for batch, latencies in self._latencies.items()
                    if latencies.pace(now) >= profiles.BUSY
                }
            )

    def _profiled(self, batch: int) -> float:
        """Seconds that went into making a profile just now."""
        start = time.perf_counter()
        if profiles.bucket(batch) in self._latencies:
            return 0.0
        self.latencies(batch)
        return time.perf_counter() - start

    def _measure(self, size: int, seconds: float | None) -> Latencies:
        x = self._example(size)
        tasks = {name: self._task(name, x) for name in self._temperature}
        latencies = Latencies(profiles.measure(tasks, seconds), time.perf_counter())
        self._latencies[size] = latencies
        self.save_profile()
        return latencies

    def _example(self, batch: int) -> np.ndarray:
        prep = self.bundle.preparation
        shape = (batch, *prep.size, prep.channels)
        return prep.normalised(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def _task(self, name: str, x: np.ndarray) -> Any:
        run, temperature = self.runtime.prepare(name, len(x)), self._temperature[name]
        return lambda: softmax(run(x), temperature)

    def _open_store(self) -> None:
        runtime = self.runtime
        self._store = profiles.Store(
            {
                "bundle": self.bundle.digest,
                "paths": [path.name for path in self.bundle.paths],
                "runtime": [runtime.name, runtime.version, runtime.device],
                "threads": self.threads,
                "precision": self.precision,
            }
        )
        now, stored = time.perf_counter(), self._store.load(list(self._temperature))
        self._latencies = {batch: Latencies(times, now) for batch, times in stored.items()}

    def _take_fastest(self, names: Sequence[str]) -> None:
        """Open the runtime whose most accurate path is fastest, of several by a profile of one image, with every path
        loaded. Of several, those that cannot run this bundle here are left out, and a warning says so."""
        found: list[tuple[float, Runtime, Any, dict[int, Latencies]]] = []
        refused: dict[str, Exception] = {}
        for name in names:
            with self._leaving_out(name, refused):
                self.runtime = open_runtime(name, self.bundle, self.threads, self.precision)
                self._open_store()
                took = self.profile(1)[self._ranked[0]].p50 if len(names) > 1 else 0.0
                found.append((took, self.runtime, self._store, self._latencies))
        for _, self.runtime, self._store, self._latencies in sorted(found, key=lambda one: one[0]):
            with self._leaving_out(self.runtime.name, refused):
                for path in self._ranked:  # loaded now, and not within the first answer
                    self._task(path, self._example(1))()
                break
        else:
            raise refused.popitem()[1]
        for name, error in refused.items():
            LOG.warning("runtime %r cannot run this bundle here and is left out: %s", name, error)

    @staticmethod
    @contextlib.contextmanager
    def _leaving_out(name: str, refused: dict[str, Exception]) -> Iterator[None]:
        try:
            yield
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            refused[name] = error


def _count(images: Any) -> int:
    """How many images there are, before anything is decoded."""
    if isinstance(images, np.ndarray):
        return len(images) if images.ndim == 4 and len(images) else 1
    return len(images) if isinstance(images, list | tuple) and images else 1


def _closed(reference: weakref.ref[AnytimePredictor]) -> None:
    predictor = reference()
    if predictor is not None:
        predictor.save_profile()


__all__ = ["Answer", "AnytimePredictor", "Confident"]
