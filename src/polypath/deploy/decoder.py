"""Decodes images within a deadline: small ones in this process, large ones in a worker that is killed at the deadline.

The time to decode an image is known in advance only roughly, and a running decoder cannot be stopped. So an image that
is large by :attr:`~polypath.data.images.Header.work` goes to a worker process (:mod:`polypath.deploy.decoding_worker`).
There is one worker, which starts when it is first needed. It receives the image's bytes, and returns pixels of the
network's input size or an error message. Its answers are limited in size and never unpickled.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from polypath.data.images import BrokenImage, ImageLimits, LargeImage, Source, file_bytes, naming, open_image
from polypath.deploy import decoding_worker
from polypath.deploy.budget import Spent
from polypath.deploy.decoding_worker import ANSWER, LENGTH, LONGEST_REASON, READY
from polypath.deploy.images import Preparation

LARGE = 2**20
"""The largest :attr:`~polypath.data.images.Header.work` that is done in this process. It takes 1 to 40 ms, depending on
the format."""
START_S = 60.0  # a worker that is not ready after this time counts as broken
DOES_NOT_START = "the process that decodes large images does not start"
GRACE_S = 1.0  # how long after the deadline a worker ends itself, in case this process has not
KEPT = ("LD_", "DYLD_")  # environment variables for the worker: no others, so that it receives no secrets


class DecodingLate(ValueError):
    """An image was not decoded by its deadline.

    Attributes:
        seconds: time spent on the image, without the wait for other images.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it was not decoded in time (stopped after {seconds:.3g} s)")
        self.seconds = seconds


class DecodingCancelled(Exception):
    """The image is no longer wanted: :meth:`Cancellation.cancel` was called."""


class Cancellation:
    """Cancels the decoding of an image that is no longer wanted, before or while it runs, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            if self._stop is not None:
                self._stop()

    @contextlib.contextmanager
    def ends(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call ``stop`` if the decoding is cancelled within the block.

        Raises:
            DecodingCancelled: it was cancelled before the block.
        """
        with self._lock:
            if self.cancelled:
                raise DecodingCancelled
            self._stop = stop
        try:
            yield
        finally:
            with self._lock:
                self._stop = None


class Decoder:
    """A thread-safe decoder with a worker process. Large images are decoded one at a time.

    Args:
        niceness: niceness of the worker process. Processes with a smaller value run first.
    """

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._turn = threading.Lock()
        self._worker: _Worker | None = None
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the worker if there is none, without waiting for it."""
        with self._turn:
            if most_here() is not None:
                self._running()

    def ready(self) -> float:
        """Wait until the worker accepts images, and return the seconds that it took to start.

        Raises:
            RuntimeError: the worker cannot be started.
        """
        with self._turn:
            begun = time.perf_counter()  # not earlier: the wait for another caller's image does not count
            if most_here() is not None:
                try:
                    self._running().wait(begun + START_S)
                except TimeoutError:
                    raise RuntimeError(DOES_NOT_START) from None
            return time.perf_counter() - begun

    def decode(self, source: Source, preparation: Preparation, limits: ImageLimits, spent: Spent) -> np.ndarray:
        """Decode and resize one image within the budget of ``spent``, and return ``(H, W, C)`` uint8.

        The worker's time is added to ``spent``, except for its start. PIL images are decoded in this process.

        Raises:
            BrokenImage: the source is not an image, or is beyond the limits. The message contains the file name.
            DecodingLate: the budget is used up.
        """
        if isinstance(source, Image.Image):
            return preparation.pixels(open_image(source, limits))
        data = file_bytes(source, limits) if isinstance(source, str | os.PathLike) else bytes(source)
        with naming(source):
            with contextlib.suppress(LargeImage):
                most = most_here() if spent.deadline < math.inf else None
                return preparation.pixels(open_image(data, limits, most=most))
            if not self._turn.locked():  # otherwise the worker is busy, hence started
                spent.waive(self.ready())
            try:
                pixels, seconds = self.apart(data, preparation, limits, spent.deadline)
            except DecodingLate as error:
                spent.decoding_ms += 1e3 * error.seconds
                raise
            spent.decoding_ms += 1e3 * seconds
            return pixels

    def apart(
        self,
        data: bytes,
        preparation: Preparation,
        limits: ImageLimits,
        deadline: float,
        cancellation: Cancellation | None = None,
    ) -> tuple[np.ndarray, float]:
        """Decode in the worker, which is killed at ``deadline`` (``time.perf_counter()``). Return ``(H, W, C)`` uint8,
        and the seconds of processor time that the decoding took.

        Raises:
            BrokenImage: the data is not an image, is beyond the limits, or crashes the decoder.
            DecodingLate: the deadline has passed.
            DecodingCancelled: the image is no longer wanted.
            RuntimeError: the worker cannot be started.
        """
        cancellation = cancellation or Cancellation()
        if not self._turn.acquire(timeout=max(0.0, deadline - time.perf_counter())):
            raise DecodingLate(0.0)
        try:
            worker = self._running()
            with cancellation.ends(worker.kill):
                return worker.decode(data, preparation, limits, deadline)
        except BrokenImage:
            if cancellation.cancelled:  # the killed worker looks like a crash
                raise DecodingCancelled from None
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the worker. The next large image starts a new one."""
        worker, self._worker = self._worker, None
        if worker is not None and self._owner == os.getpid():
            worker.close()

    def _running(self) -> _Worker:
        if self._owner != os.getpid():  # this process is a fork: the worker belongs to its parent
            self._worker, self._owner = None, os.getpid()
        if self._worker is None or not self._worker.alive:
            if self._worker is not None:
                self._worker.close()
            self._worker = _Worker(self._niceness)
        return self._worker


def most_here() -> int | None:
    """Return the largest work to do in this process. None means no limit: Windows has no timer that ends a worker."""
    return LARGE if hasattr(signal, "setitimer") else None


@cache
def decoder() -> Decoder:
    """Return this process's decoder."""
    return Decoder()


class _Worker:
    """A process that decodes one image at a time. If it does not finish one in time, it is killed."""

    def __init__(self, niceness: int) -> None:
        self._link, theirs = socket.socketpair()
        places = [place for place in sys.path if place]
        command = [
            sys.executable,
            "-I",
            "-S",
            decoding_worker.__file__,
            str(os.getpid()),
            str(niceness),
            json.dumps(places),
        ]
        environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        streams: dict[str, Any] = {"stdin": theirs.fileno(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            with theirs:
                self._process = subprocess.Popen(command, **streams, env=environment)
        except OSError as error:
            self._link.close()
            raise RuntimeError(f"{DOES_NOT_START}: {error}") from None
        self._ready = False
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, self._link)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process, from any thread. A caller that waits for its answer gets an error."""
        self._process.kill()

    def close(self) -> None:
        self._end()

    def wait(self, until: float) -> None:
        """Wait until the process accepts images.

        Raises:
            RuntimeError: the process ended instead.
            TimeoutError: the process is not ready in time.
        """
        if not self._ready:
            try:
                self._ready = self._receive(len(READY), until) == READY
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                raise RuntimeError(DOES_NOT_START) from None

    def decode(
        self, data: bytes, preparation: Preparation, limits: ImageLimits, deadline: float
    ) -> tuple[np.ndarray, float]:
        """Decode an image as :meth:`Decoder.apart` does."""
        try:
            self.wait(deadline)
        except TimeoutError:  # keep the process: it may be ready for the next image
            raise DecodingLate(0.0) from None
        begun = time.perf_counter()
        try:
            return self._answer(data, preparation, limits, deadline)
        except TimeoutError:
            self.close()
            raise DecodingLate(time.perf_counter() - begun) from None
        except OSError:
            self.close()
            if self._process.returncode == -signal.SIGALRM:
                raise DecodingLate(time.perf_counter() - begun) from None
            raise BrokenImage(f"its decoder crashed (status {self._process.returncode})") from None
        except BrokenImage:
            raise
        except BaseException:  # interrupted: otherwise the next image would get this image's answer
            self.close()
            raise

    def _answer(
        self, data: bytes, preparation: Preparation, limits: ImageLimits, deadline: float
    ) -> tuple[np.ndarray, float]:
        shape = (*preparation.size, preparation.channels)
        asked = {
            "bytes": len(data),
            "size": preparation.size,
            "channels": preparation.channels,
            "resize": (preparation.resize, preparation.resize_to),
            "limits": (limits.bytes, limits.pixels, limits.passes),
            "seconds": max(0.0, deadline - time.perf_counter()) + GRACE_S,
        }
        head = json.dumps(asked).encode()
        self._send(LENGTH.pack(len(head)) + head, deadline)
        self._send(data, deadline)
        good, seconds, length = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        if good and length == math.prod(shape):
            return np.frombuffer(self._receive(length, deadline), np.uint8).reshape(shape), seconds
        if good or length > LONGEST_REASON:
            raise OSError("an answer of another size")
        raise BrokenImage(self._receive(length, deadline).decode(errors="replace"))

    def _send(self, data: bytes, until: float) -> None:
        self._link.settimeout(_left(until))
        self._link.sendall(data)

    def _receive(self, length: int, until: float) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            self._link.settimeout(_left(until))
            if not (got := self._link.recv_into(rest)):
                raise ConnectionResetError("the worker has ended")
            rest = rest[got:]
        return data


def _end(owner: int, process: subprocess.Popen[Any], link: socket.socket) -> None:
    """End a worker's process. Also runs when a worker is garbage-collected and at exit; a fork kills nothing."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    link.close()


def _left(until: float) -> float:
    return max(0.001, until - time.perf_counter())  # 0 would mean non-blocking, which raises another error
