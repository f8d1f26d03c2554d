"""Classifies images within a time budget, with the most accurate path of a bundle that is fast enough.

    predictor = AnytimePredictor(Bundle.open())
    answer = predictor.predict(images, budget_ms=2.0)
    for better in predictor.predict_until(images, time.monotonic() + 0.02): ...
    sure = predictor.predict_confident(images, risk=0.05)

A path fits a budget if the 99.5th percentile of its times on this machine, at this batch size, is within the budget.
Times come from a short profile on first use, which is cached, and from later answers.

A budget covers the time from a call to its return, without one-time work: decoders are loaded when a predictor is made.
A new batch size is profiled, and its graphs are compiled, before the clock starts.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from polypath.core.arguments import takes
from polypath.core.checks import FLAG, TEXT, Rule, check, instance, number, one_of, optional
from polypath.data.images import LIMITS, ImageLimits
from polypath.deploy import latency_profile as profiles
from polypath.deploy.answer import Answer, Confident, averaged, check_top_k, softmax
from polypath.deploy.budget import BudgetError, Spent, check_budget
from polypath.deploy.bundle import Bundle, rank
from polypath.deploy.climber import Climber
from polypath.deploy.decoder import DecodingLate, decoder
from polypath.deploy.graph_check import GraphRefused
from polypath.deploy.latency import Latencies, Timing, spread
from polypath.deploy.precision import usable
from polypath.deploy.runtimes import Runtime, candidates, check_options, facts_of, open_runtime
from polypath.deploy.stopping import Stopping, plan_stopping
from polypath.deploy.warm import warm_decoders
from polypath.profiling.cores import cores

LOG = logging.getLogger(__name__)
PRECISIONS = ("auto", "f32", "bf16", "int8")
_SECONDS = number(above=0)
_PROFILE = Rule("stored, fresh or seconds above 0", lambda v: one_of("stored", "fresh").fits(v) or _SECONDS.fits(v))
_Opened = tuple[Runtime, profiles.Store, dict[int, Latencies]]
_MOMENT = Rule("a moment of time.monotonic()", number().fits)


class AnytimePredictor:
    """A thread-safe classifier that runs the paths of a bundle in one runtime.

    Args:
        bundle: a :class:`Bundle`, its folder, or None for the pretrained one.
        runtime: ``openvino``, ``onnxruntime``, ``torch``, ``torch-compiled`` or ``cuda-graphs``; or ``auto``, which is
            the fastest installed runtime that can run the bundle, by a short profile.
        threads: number of threads for one answer; None means the number of cores that this process may use.
        precision: ``auto`` uses float32 paths, and int8 paths whose errors are known for this machine's instructions.
            ``f32`` and ``int8`` use only paths of that precision. ``bf16`` runs float32 paths in bfloat16, if the
            runtime supports it.
        limits: limits for images that are decoded.
        profile: ``stored`` uses the times stored by an earlier session, and measures missing times. ``fresh`` measures
            all times again. A number measures each path for that many seconds, and accepts times of a busy machine.

    Raises:
        ValueError: the bundle is damaged, the runtime is unknown, or the number of threads, the precision or the
            profile is invalid.
        ImportError: the runtime is not installed.
    """

    @takes(
        bundle=optional(instance(Bundle, str, os.PathLike, legal="a Bundle, or its folder")),
        runtime=TEXT,
        precision=TEXT,
        limits=instance(ImageLimits, legal="ImageLimits"),
    )
    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        *,
        precision: str = "auto",
        limits: ImageLimits = LIMITS,
        profile: Literal["stored", "fresh"] | float = "stored",
    ) -> None:
        profile = check("profile", profile, _PROFILE)
        check("precision", precision, one_of(*PRECISIONS))
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        names = candidates(bundle) if runtime == "auto" else [runtime]
        self.bundle, names, left_out = usable(bundle, precision, names)
        if left_out:
            LOG.info("%s: %s", bundle.name, left_out)
        plain = all(path.precision == "f32" for path in self.bundle.paths)
        self.limits, self.precision = limits, "f32" if plain and precision != "bf16" else precision
        self._of_runtime = "bf16" if precision == "bf16" else "f32"
        self._temperature = {path.name: path.temperature for path in self.bundle.paths}
        self._accuracies = {path.name: 1.0 - (path.error or 0.0) / 100.0 for path in rank(self.bundle.paths)}
        self._ranked = list(self._accuracies)
        self._stored, self._seconds = profile == "stored", None if isinstance(profile, str) else float(profile)
        self._lock = threading.RLock()
        self._latencies: dict[int, Latencies] = {}
        self._warm: set[tuple[str, int]] = set()  # paths and batch sizes that have run
        self._stopping: dict[tuple[float, float], Stopping] = {}
        check_options(threads, self._of_runtime)
        self.threads = cores() if threads is None else threads
        if precision == "bf16" and runtime == "auto":
            names = [name for name in names if name != "onnxruntime"]
        self._take_fastest(names)
        self._climber = Climber(
            self.bundle, self.runtime, self._timed, self._probabilities, self._example, self.latencies
        )
        warm_decoders(self.bundle.preparation)
        atexit.register(_closed, weakref.ref(self))

    def __repr__(self) -> str:
        used = f"{self.runtime.name}, {self.precision}, threads={self.threads}"
        return f"AnytimePredictor({self.bundle.name!r}, {len(self.bundle.paths)} paths, {used})"

    def warm_up(self, batch: int = 1) -> None:
        """Run every path and every step of the ladder once on a batch of this size.

        After that, no answer at this batch size has to wait until graphs are loaded or compiled. This method is called
        automatically before the first answer at a new batch size. For batch size 1, the paths run once when the
        predictor is made.
        """
        self._warm_paths(batch)
        with self._lock:
            self._climber.warm_up(batch)

    def _warm_paths(self, batch: int) -> None:
        with self._lock:
            x = None
            for name in self._ranked:
                if (name, batch) not in self._warm:
                    x = self._example(batch) if x is None else x
                    self._task(name, x)()
                    self._warm.add((name, batch))

    # --- answering ---------------------------------------------------------------------------------------

    def predict(
        self,
        images: Any,
        budget_ms: float | None = None,
        path: str | None = None,
        *,
        top_k: int | None = None,
        allow_late: bool = False,
    ) -> Answer:
        """Classify images with the most accurate path that fits ``budget_ms``, or with ``path``.

        Args:
            images: a uint8 array ``(N, H, W, C)`` or ``(H, W, C)``; or one or a sequence of PIL images, encoded bytes
                or files.
            budget_ms: milliseconds from this call to its return, for all images together; one-time profiling and
                loading do not count. If neither a budget nor a path is given, the most accurate path runs.
            path: the name of a path to use, however slow; not together with a budget.
            top_k: number of classes that :meth:`Answer.top` returns for each image; None means its default.
            allow_late: use the path that is most likely to answer correctly and in time, instead of raising
                ``BudgetError``. Some answers are late.

        Raises:
            BudgetError: the cheapest path needs more time than the budget (raised before anything is decoded), or more
                time than remains after decoding.
            ValueError: the images or an argument are invalid.
        """
        start = time.perf_counter()
        check("allow_late", allow_late, FLAG)
        if top_k is not None:
            check_top_k(top_k, self.bundle.classes)
        if budget_ms is None:
            if allow_late:
                raise ValueError("allow_late = True: is only allowed with budget_ms")
            x = self.prepared(images)
            name = self._ranked[0] if path is None else self.bundle.path(path).name
        else:
            budget_ms = check_budget(budget_ms)
            if path is not None:
                raise ValueError(f"path {path!r} and budget_ms {budget_ms!r} are both given: give only one of them")
            count = _count(images)
            start += self._make_ready(count)
            if allow_late:
                x = self.prepared(images)
                name = self.choose(budget_ms - 1e3 * (time.perf_counter() - start), len(x), allow_late=True)
            else:
                self.choose(budget_ms, count)  # refuses before anything is decoded
                spent = Spent(budget_ms, start)
                x = self._within(images, spent)
                start = spent.start
                name = self.choose(spent.left_ms, len(x), spent=spent)
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
        """Yield more and more accurate answers until ``deadline``, a time of ``time.monotonic()``.

        The paths of the bundle's ladder run in order. A path's probabilities are averaged with those of earlier paths
        if this was more accurate on held-out images. Nodes that a path shares with earlier paths do not run again
        (:mod:`polypath.deploy.climb`). A path that would not finish in time is not started.

        Raises:
            ValueError: the deadline is not a number, or the images are invalid.
            BudgetError: the first path would not finish in time.
        """
        start = time.perf_counter()
        check("deadline", deadline, _MOMENT)
        spent = Spent(max(0.0, 1e3 * (deadline - time.monotonic())), start, fixed=True)
        count = _count(images)
        self._make_ready(count)  # this time counts, since a deadline is fixed
        self._ready_to_climb(count)
        x = self._within(images, spent)
        return self._until(x, deadline, spent)

    def _until(self, x: np.ndarray, deadline: float, spent: Spent) -> Iterator[Answer]:
        ran: dict[str, np.ndarray] = {}
        climb = self._climber.begin(x)
        for i, rung in enumerate(self.bundle.ladder):
            latencies = self._climber.latencies(i, len(x))
            if not latencies.fits(rung.path, 1e3 * (deadline - time.monotonic()), time.perf_counter()):
                if not ran:
                    raise spent.refusal(latencies.paths[rung.path].needs, len(x), latencies.origin)
                return
            ran[rung.path] = self._climber.run(climb, i)
            yield Answer(
                probabilities=averaged(ran, rung),
                classes=self.bundle.classes,
                path=rung.path,
                ms=spent.ms,
                runtime=self.runtime.name,
                combined=rung.combine,
            )

    def predict_confident(
        self, images: Any, *, risk: float = 0.05, trust: float = 0.95, budget_ms: float | None = None
    ) -> Confident:
        """Classify each image with the ladder's first path that is confident enough.

        Args:
            risk: largest allowed share of wrong answers among images that stop. With 0.05, at least 95% of these
                answers are correct.
            trust: probability that this holds, over the random choice of held-out images (exact binomial bound).
            budget_ms: time budget for all images; a path that would not finish in time is not started.

        Raises:
            ValueError: the bundle has no held-out answers, or too few for this risk. The message states the number
                needed.
            BudgetError: the first path does not fit the budget.
        """
        stopping = self.stopping(risk, trust)
        limit = math.inf if budget_ms is None else check_budget(budget_ms)
        start = time.perf_counter()
        if budget_ms is not None:
            count = _count(images)
            start += self._make_ready(count)
            if self.runtime.per_batch:
                start += sum(self._make_ready(2**i, profile=False) for i in range((count - 1).bit_length()))
            start += self._ready_to_climb(count)
        spent = Spent(limit, start)
        x = self._within(images, spent)
        start = spent.start
        n = len(x)
        out = np.empty((n, len(self.bundle.classes)), np.float32)
        where, sure, rows = [""] * n, np.zeros(n, bool), np.arange(n)
        ran: dict[str, np.ndarray] = {}
        last, climb = self.bundle.ladder[0].path, self._climber.begin(x)
        for i, (rung, threshold) in enumerate(zip(self.bundle.ladder, stopping.thresholds, strict=True)):
            if budget_ms is not None:
                latencies = self._climber.latencies(i, self._known(len(rows)))
                if not latencies.fits(rung.path, spent.left_ms, time.perf_counter()):
                    if not ran:
                        raise spent.refusal(latencies.paths[rung.path].needs, n, latencies.origin)
                    break
            ran[rung.path] = self._climber.run(climb, i, n)
            out[rows], last = averaged(ran, rung), rung.path
            stops = out[rows].max(1) >= threshold
            sure[rows[stops]] = True
            for row in rows:
                where[row] = rung.path
            keep = ~stops
            rows = rows[keep]
            climb.keep(keep)
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
        """Return the thresholds that bound ``risk``; see :meth:`predict_confident`."""
        if (risk, trust) not in self._stopping:
            self._stopping[risk, trust] = plan_stopping(self.bundle, risk, trust)
        return self._stopping[risk, trust]

    def prepared(self, images: Any, spent: Spent | None = None) -> np.ndarray:
        """Decode, resize and normalise images, and return them as ``(N, C, H, W)`` float32.

        Args:
            images: as for :meth:`predict`.
            spent: a record of the budget. When the budget is used up, the decoding of a large image stops.

        Raises:
            DecodingLate: the budget is used up.
        """
        prep, decode = self.bundle.preparation, None
        if spent is not None:
            decode = partial(decoder().decode, preparation=prep, limits=self.limits, spent=spent)
        return prep.normalised(prep.array(images, self.limits, decode))

    def _within(self, images: Any, spent: Spent) -> np.ndarray:
        """Call :meth:`prepared` within a budget. When the budget is used up, the decoding of a large image stops.

        Raises:
            BudgetError: the budget is used up.
        """
        try:
            return spent.on_decoding(lambda: self.prepared(images, spent))
        except DecodingLate:
            latencies = self.latencies(_count(images))
            needs = latencies.paths[latencies.cheapest].needs
            raise spent.refusal(needs, _count(images), latencies.origin) from None

    def run_path(self, name: str, x: np.ndarray) -> np.ndarray:
        """Run one path, and return its calibrated probabilities ``(N, classes)`` float32.

        This method does not record the time. A caller can measure the time and add it to :meth:`latencies`.

        Args:
            x: images ``(N, C, H, W)`` float32, as :meth:`prepared` returns them.

        Raises:
            ValueError: there is no such path, or the images have a wrong shape or type.
        """
        shape = (self.bundle.preparation.channels, *self.bundle.size)
        if x.dtype != np.float32 or x.ndim != 4 or x.shape[1:] != shape or not len(x):
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"x has shape {x.shape} and type {x.dtype}: must be float32 of shape (N, {wanted})")
        if name not in self._temperature:
            name = self.bundle.path(name).name
        return self._probabilities(name, self.runtime.prepare(name, len(x))(x), len(x))

    def _probabilities(self, name: str, logits: np.ndarray, batch: int) -> np.ndarray:
        classes = len(self.bundle.classes)
        if logits.shape != (batch, classes):
            wanted = f"({batch}, {classes}), one logit for each class"
            raise ValueError(f"path {name!r} of {self.bundle.folder} returns shape {logits.shape}: must be {wanted}")
        with np.errstate(all="ignore"):  # values that are not finite raise an error below
            probabilities = softmax(logits, self._temperature[name])
        if not np.isfinite(probabilities).all():
            raise ValueError(f"path {name!r} of {self.bundle.folder} is damaged: its logits are not finite")
        return probabilities

    def _timed(self, name: str, x: np.ndarray) -> np.ndarray:
        """Call :meth:`run_path`. Record the time if the batch size has been profiled, unless this is a first run."""
        start = time.perf_counter()
        probabilities = self.run_path(name, x)
        end = time.perf_counter()
        size, cold = profiles.bucket(len(x)), (name, len(x)) not in self._warm
        self._warm.add((name, len(x)))
        if not cold and (latencies := self._latencies.get(size)) is not None:
            latencies.observe(name, 1e3 * (end - start), end, full=len(x) == size)
        return probabilities

    # --- times -------------------------------------------------------------------------------------------

    def choose(self, budget_ms: float, batch: int = 1, *, spent: Spent | None = None, allow_late: bool = False) -> str:
        """Return the name of the most accurate path whose 99.5th percentile fits the budget.

        Args:
            spent: a record of the time spent so far, for the error message.
            allow_late: return the path that most likely answers correctly within the budget, which may be late.

        Raises:
            BudgetError: no path fits the budget, and ``allow_late`` is not set.
        """
        latencies, now = self.latencies(batch), time.perf_counter()
        if allow_late:
            return latencies.most_right(budget_ms, self._accuracies)
        name = next((name for name in self._ranked if latencies.fits(name, budget_ms, now)), None)
        if name is not None:
            return name
        needs = latencies.paths[latencies.cheapest].needs
        if spent is not None:
            raise spent.refusal(needs, batch, latencies.origin)
        raise BudgetError(budget_ms, needs, batch, origin=latencies.origin)

    def needs_ms(self, path: str, batch: int = 1) -> float:
        """Return the 99.5th percentile of a path's time on this machine, in milliseconds."""
        return self.latencies(batch).paths[path].needs

    def latencies(self, batch: int, seconds: float | None = None) -> Latencies:
        """Return the estimated times at a batch size, rounded up to a power of two. Unknown times are measured.

        Args:
            seconds: measuring time of each path, as for :meth:`profile`.

        Raises:
            ValueError: the batch size is below 1.
        """
        size = profiles.bucket(batch)
        if (known := self._latencies.get(size)) is not None:
            return known
        with self._lock:
            return self._latencies.get(size) or self._measure(size, self._seconds if seconds is None else seconds)

    def profile(self, batch: int = 1, *, fresh: bool = False, seconds: float | None = None) -> dict[str, Timing]:
        """Return the times of each path for this batch size, rounded up to a power of two. Unknown times are measured.

        Args:
            fresh: whether to measure known times again.
            seconds: how long to measure each path. With a number, the times are accepted even if the machine was
                busy. None means 1 second, and measures again if the machine was busy. Longer profiles estimate high
                percentiles better.

        Raises:
            ValueError: the batch size is below 1, or ``seconds`` is not above 0.
        """
        size = profiles.bucket(batch)
        check("seconds", seconds, optional(number(above=0)))
        if fresh:
            with self._lock:
                self._measure(size, seconds)
        latencies = self.latencies(batch, seconds)
        return {path.name: latencies.paths[path.name].timing for path in self.bundle.paths}

    def save_profile(self) -> None:
        """Write the known times to the cache. This happens automatically after each profile and at exit.

        Times that were disturbed by a busy machine are not written. A profile is not written either if the paths are
        now much faster than in the profile. A later session measures these batch sizes again.
        """
        with self._lock:
            now = time.perf_counter()
            rows = {batch: latencies.to_store(now) for batch, latencies in self._latencies.items()}
            self._store.save({batch: row for batch, row in rows.items() if row is not None})

    def _known(self, batch: int) -> int:
        """Return the smallest profiled batch size that is at least ``batch``."""
        return min(size for size in self._latencies if size >= batch)

    def _make_ready(self, batch: int, *, profile: bool = True) -> float:
        """Do the one-time work for a batch size (profile, graphs), and return the seconds that it took."""
        start, cold = time.perf_counter(), any((name, batch) not in self._warm for name in self._ranked)
        if not cold and (not profile or profiles.bucket(batch) in self._latencies):
            return 0.0
        if profile:
            self.latencies(batch)
        self._warm_paths(batch)
        return time.perf_counter() - start

    def _ready_to_climb(self, batch: int) -> float:
        """Do the one-time work for the ladder's steps (times, graphs), and return the seconds that it took."""
        start = time.perf_counter()
        smaller = [2**i for i in range((batch - 1).bit_length())] if self.runtime.per_batch else []
        with self._lock:
            done = [self._climber.warm_up(size) for size in (*smaller, batch)]
            self._climber.measure(batch)
        return time.perf_counter() - start if any(done) else 0.0

    def _measure(self, size: int, seconds: float | None, *, once: bool = False) -> Latencies:
        x, origin = self._example(size), "measured"
        tasks = {name: self._task(name, x) for name in self._temperature}
        if seconds is None:
            times, origin = profiles.quietest(tasks, 1 if once else profiles.TRIES)
        else:
            times = profiles.measure(tasks, seconds)
        latencies = self._latencies[size] = Latencies(times, time.perf_counter(), origin)
        self._warm |= {(name, size) for name in tasks}
        if origin == "busy" and not once:
            name = max(times, key=lambda name: spread(times[name]))
            LOG.warning(
                "the machine was busy while times were measured (%s: %.3g to %.3g ms); the next session will measure "
                "them again (to measure now, use --profile fresh)",
                *(name, min(times[name]), max(times[name])),
            )
        self.save_profile()
        return latencies

    def _example(self, batch: int) -> np.ndarray:
        prep = self.bundle.preparation
        shape = (batch, *prep.size, prep.channels)
        return prep.normalised(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def _task(self, name: str, x: np.ndarray) -> Any:
        run = self.runtime.prepare(name, len(x))
        return lambda: self._probabilities(name, run(x), len(x))

    def _store_of(self, runtime: Sequence[str]) -> profiles.Store:
        """Return the cache of a runtime's times. ``runtime`` contains the runtime's name, version and device."""
        return profiles.Store(
            {
                "bundle": self.bundle.digest,
                "paths": [path.name for path in self.bundle.paths],
                "runtime": list(runtime),
                "threads": self.threads,
                "precision": self._of_runtime,
            }
        )

    def _stored_times(self, store: profiles.Store) -> dict[int, dict[str, list[float]]]:
        return store.load(list(self._temperature)) if self._stored else {}

    def _open(self, name: str, opened: dict[str, _Opened]) -> None:
        """Use the runtime ``name`` in this predictor. Open it with its stored times if it is not in ``opened``."""
        if name not in opened:
            runtime = open_runtime(name, self.bundle, self.threads, self._of_runtime)
            store, now = self._store_of((runtime.name, runtime.version, runtime.device)), time.perf_counter()
            times = self._stored_times(store)
            opened[name] = runtime, store, {batch: Latencies(times[batch], now, "stored") for batch in times}
        self.runtime, self._store, self._latencies = opened[name]

    def _typical_ms(self, name: str, opened: dict[str, _Opened]) -> float:
        """Return the most accurate path's median time for one image. The median is computed from stored times, without
        opening the runtime, or otherwise from a short profile."""
        best = self._ranked[0]
        if stored := self._stored_times(self._store_of(facts_of(name))).get(1):
            return Timing.of(stored[best]).p50
        self._open(name, opened)
        # with ``seconds``, the times of every runtime are accepted and stored, so the next start opens only the fastest
        self._measure(1, None if self._seconds is None else min(self._seconds, profiles.SECONDS), once=True)
        return self._latencies[1].paths[best].timing.p50

    def _take_fastest(self, names: Sequence[str]) -> None:
        """Open the runtime that runs the most accurate path fastest, and load every path. If other runtimes can run
        this bundle here, a runtime that cannot run it is left out with a warning."""
        opened: dict[str, _Opened] = {}
        refused: dict[str, Exception] = {}
        took: dict[str, float] = {}
        for name in names:
            with self._leaving_out(name, refused):
                took[name] = self._typical_ms(name, opened) if len(names) > 1 else 0.0
        for name in sorted(took, key=took.__getitem__):
            with self._leaving_out(name, refused):
                self._open(name, opened)
                self._warm.clear()
                self._warm_paths(1)
                break
        else:
            raise refused.popitem()[1]
        for name, error in refused.items():
            LOG.warning("runtime %r cannot run this bundle here and is left out: %s", name, error)
        latencies = self._latencies.get(1)
        doubted = not self._stored if latencies is None else latencies.origin == "busy"
        if doubted or self._seconds is not None:  # a later session may need the times even if this one does not
            self._measure(1, self._seconds)

    @staticmethod
    @contextlib.contextmanager
    def _leaving_out(name: str, refused: dict[str, Exception]) -> Iterator[None]:
        try:
            yield
        except GraphRefused:  # the bundle cannot be trusted in any runtime
            raise
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            refused[name] = error


def _count(images: Any) -> int:
    """Return the number of images without decoding any."""
    if isinstance(images, np.ndarray):
        return len(images) if images.ndim == 4 and len(images) else 1
    return len(images) if isinstance(images, list | tuple) and images else 1


def _closed(reference: weakref.ref[AnytimePredictor]) -> None:
    predictor = reference()
    if predictor is not None:
        predictor.save_profile()


__all__ = ["Answer", "AnytimePredictor", "Confident"]
