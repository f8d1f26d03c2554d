"""Train a run in a separate Python process, which exits when its parent exits.

Ctrl-C and SIGTERM are forwarded to the runs, which save and exit (:func:`passed_on`). A parent that is killed cannot
forward signals. So a run also watches its standard input, a pipe that only the parent holds open. When the pipe closes,
the run exits at once, as if it had been killed. The lock of the run is then free, and its last checkpoint is intact.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from polypath.training.loop import resume, train
from polypath.training.recipe import Recipe, recipe_from_json, recipe_to_json
from polypath.training.signals import Stopped, StopRequest, stop_requests

_RUNNING: set[subprocess.Popen[str]] = set()
_REQUEST = StopRequest()


@contextlib.contextmanager
def passed_on() -> Iterator[StopRequest]:
    """Forward SIGINT and SIGTERM to the running processes inside the ``with`` block. These processes save and exit, and
    no new processes are started."""
    with stop_requests(_end_all) as request:
        _REQUEST.signal = 0
        try:
            yield request
        finally:
            _REQUEST.signal = 0


def _end_all(number: int) -> None:
    _REQUEST.signal = number
    for process in tuple(_RUNNING):
        process.terminate()


def in_process_of_its_own(recipe: Recipe, path: Path, slot: int, place: str | None = None) -> None:
    """Train or resume a run in a new Python process, with images from the folder ``place``. The process writes its
    output to ``logs/`` beside the run's folder.

    Raises:
        RuntimeError: the process failed; the message is the last line of its output.
        Stopped: a signal was forwarded to the process.
    """
    log = path.parent / "logs" / f"{path.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if recipe.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot % torch.cuda.device_count())
    command = [sys.executable, "-m", __name__, str(path), *([place] if place else [])]
    with open(log, "a", encoding="utf-8") as stream:
        _check_request(path)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=stream, text=True, env=environment
        )
        assert process.stdin is not None
        _RUNNING.add(process)
        try:
            if _REQUEST.signal:  # a signal came while the process was started
                process.terminate()
            with contextlib.suppress(BrokenPipeError):  # the process has already ended; its status is checked below
                process.stdin.write(json.dumps(recipe_to_json(recipe)) + "\n")
                process.stdin.flush()
            status = process.wait()
        finally:
            _RUNNING.discard(process)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    if status:
        _check_request(path)
        said = log.read_text(encoding="utf-8").strip().splitlines()
        raise RuntimeError(said[-1] if said and status > 0 else f"the process ended with status {status}")


def _check_request(path: Path) -> None:
    if _REQUEST.signal:
        raise Stopped(_REQUEST.signal, f"{path}: a signal stopped the run")


def here(recipe: Recipe, path: Path, slot: int = 0, place: str | None = None, *, quiet: bool = True) -> None:
    """Train or resume a run in this process, with images from the folder ``place``."""
    if (path / "recipe.json").is_file():
        resume(path, data_moved=place, quiet=quiet)
    else:
        train(recipe, path, data_moved=place, quiet=quiet)


def main() -> None:
    """Train one run. The recipe is read from standard input, as one line of JSON. The arguments are the folder of the
    run and the folder of the images."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("polypath").setLevel(logging.INFO)
    document = bytearray()  # not read by sys.stdin: a thread that waits in it would block Python's shutdown
    while not document.endswith(b"\n"):
        if not (more := os.read(0, 1 << 16)):
            sys.exit("standard input does not contain a recipe")
        document += more
    threading.Thread(target=_leave_with_the_starter, daemon=True).start()
    try:
        place = sys.argv[2] if sys.argv[2:] else None
        here(recipe_from_json(json.loads(document)), Path(sys.argv[1]), place=place, quiet=False)
    except (ValueError, FloatingPointError, ImportError, OSError) as error:
        sys.exit(" ".join((str(error) or type(error).__name__).split()))
    except KeyboardInterrupt:
        sys.exit(130)


def _leave_with_the_starter() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(143)


if __name__ == "__main__":
    main()
