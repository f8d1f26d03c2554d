"""Decodes images within a deadline. Large images are decoded in a worker process, which is killed at the deadline.

The time to decode an image is known in advance only roughly, and a running decoder cannot be stopped. So an image that
is large by :attr:`~polypath.data.images.Header.work` goes to a worker process (:mod:`polypath.deploy.decoding_worker`).
There is one worker, which starts when it is first needed. It receives the image's bytes, and returns pixels of the
network's input size or an error message. The worker's answers are limited in size and never unpickled.
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
"""The largest :attr:`~polypath.data.images.Header.work` of an image that is decoded in this process. Decoding such an
image takes 1 to 40 ms, depending on the format."""
START_S = 60.0  # a worker that is not ready after this time counts as broken
DOES_NOT_START = "the process that decodes large images does not start"
GRACE_S = 1.0  # a worker that this process has not killed ends itself this long after the deadline
KEPT = ("LD_", "DYLD_")  # the worker receives only environment variables with these prefixes, hence no secrets


class DecodingLate(ValueError):
    """The error for an image that was not decoded by its deadline.

    Attributes:
        seconds: time spent on the image, without the wait for other images.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the image was not decoded in time (stopped after {seconds:.3g} s)")
        self.seconds = seconds


class DecodingCancelled(Exception):
    """The error for an image whose decoding was stopped by :meth:`Cancellation.cancel`."""


class Cancellation:
    """A handle with which any thread can cancel the decoding of an image, before it starts or while it runs."""

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
            DecodingCancelled: the decoding was cancelled before the block.
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
            begun = time.perf_counter()  # set here, since the wait for another caller's image does not count
            if most_here() is not None:
                try:
                    self._running().wait(begun + START_S)
                except TimeoutError:
                    raise RuntimeError(DOES_NOT_START) from None
            return time.perf_counter() - begun

    def decode(self, source: Source, preparation: Preparation, limits: ImageLimits, spent: Spent) -> np.ndarray:
        """Decode and resize one image within the budget of ``spent``, and return ``(H, W, C)`` uint8.

        The worker's processor time is added to ``spent``. The time to start the worker does not count. PIL images are
        decoded in this process.

        Raises:
            BrokenImage: the source is not an image, or exceeds the limits. The message contains the file name.
            DecodingLate: the budget is used up.
        """
        if isinstance(source, Image.Image):
            return preparation.pixels(open_image(source, limits))
        data = file_bytes(source, limits) if isinstance(source, str | os.PathLike) else bytes(source)
        with naming(source):
            with contextlib.suppress(LargeImage):
                most = most_here() if spent.deadline < math.inf else None
                return preparation.pixels(open_image(data, limits, most=most))
            if not self._turn.locked():  # otherwise the worker is busy, so it has started
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
        """Decode an image in the worker, which is killed at ``deadline`` (``time.perf_counter()``). Return
        ``(H, W, C)`` uint8 and the seconds of processor time that the decoding took.

        Raises:
            BrokenImage: the data is not an image, exceeds the limits, or crashes the decoder.
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
            if cancellation.cancelled:  # a killed worker looks like a crashed one
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
    """Return the largest ``Header.work`` of an image that is decoded in this process. None means no limit, as on
    Windows, where no timer can end a worker."""
    return LARGE if hasattr(signal, "setitimer") else None


@cache
def decoder() -> Decoder:
    """Return this process's decoder."""
    return Decoder()


class _Worker:
    """A process that decodes one image at a time. It is killed if an image is not finished in time."""

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
        """Kill the process, from any thread. A caller that waits for the process gets an error."""
        self._process.kill()

    def close(self) -> None:
        self._end()

    def wait(self, until: float) -> None:
        """Wait until the process accepts images.

        Raises:
            RuntimeError: the process has ended.
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
        except TimeoutError:  # the process is kept, since it may be ready for the next image
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
            raise BrokenImage(f"the image's decoder crashed (status {self._process.returncode})") from None
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
            raise OSError("the worker's answer has the wrong size")
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
    """End a worker's process, except in a fork. This also runs at exit and when the worker is garbage-collected."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    link.close()


def _left(until: float) -> float:
    return max(0.001, until - time.perf_counter())  # 0 would mean non-blocking mode, which raises another error
