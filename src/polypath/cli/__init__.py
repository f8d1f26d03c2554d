"""The command ``polypath``: which subcommands there are, and how errors leave.

A subcommand is one function of its arguments, in the module that :data:`COMMANDS` names; nothing heavy is imported
before it is known which one runs. Status 0 is success, 2 a mistake in what was asked (one line on standard error,
as JSON with ``--json``), 130 Ctrl-C, 1 a defect of Polypath, or a part of what was asked that could not be done.
``POLYPATH_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence

from polypath.cli.memory import keep_freed_memory
from polypath.cli.notes import notes
from polypath.cli.output import plain_where_needed, say
from polypath.cli.parser import PROGRAM
from polypath.core.checks import did_you_mean
from polypath.core.display import printable

COMMANDS: dict[str, tuple[str, str]] = {
    "models": ("polypath.cli.models", "networks by name: size, paths, printed figure and ours"),
    "recipes": ("polypath.cli.train", "training recipes by name; with a name, its fields"),
    "train": ("polypath.cli.train", "train by a recipe; any of its fields is an option"),
    "resume": ("polypath.cli.train", "go on with a run that was stopped"),
    "sweep": ("polypath.cli.sweep", "train a recipe over seeds and values of its fields: mean ± deviation"),
    "ladder": ("polypath.cli.ladder", "what paths are worth: in one network, beside each trained alone"),
    "search": ("polypath.cli.search", "the best paths of a run among all choices, not only the named"),
    "bench": ("polypath.cli.bench", "methods of any make by one frozen protocol: error, time, right in time"),
    "paths": ("polypath.cli.paths", "score and time every named path of a run: table, CSV, figure"),
    "reproduce": ("polypath.cli.reproduce", "a paper's table or figure: run, measured beside published, claims judged"),
    "explore": ("polypath.cli.explore", "a page: drop an image, move the time budget, see which path answers"),
    "report": ("polypath.cli.report", "a run as one HTML page: wiring, curves, paths, calibration, galleries"),
    "extract": ("polypath.cli.extract", "save a path of a run as a network of its own"),
    "export": ("polypath.cli.export", "write paths for other runtimes: a bundle, ONNX, OpenVINO, torch.export, Triton"),
    "predict": ("polypath.cli.predict", "classify images within a time budget"),
    "serve": ("polypath.cli.serve", "answer images over HTTP within their deadlines"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``polypath ARGV`` and return its exit status."""
    with plain_where_needed():
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(args: list[str]) -> int:
    try:
        if not args or args[0] in ("-h", "--help"):
            say(usage())
            return 0
        if args[0] == "--version":
            from importlib.metadata import version

            say(f"{PROGRAM} {version('polypath')}")
            return 0
        name = args[0]
        if name not in COMMANDS:
            raise ValueError(f"unknown subcommand {name!r}; {did_you_mean(name, COMMANDS)}")
        keep_freed_memory()
        with notes(as_json="--json" in args):
            status = getattr(importlib.import_module(COMMANDS[name][0]), name)(args[1:])
        sys.stdout.flush()
        return status or 0
    except SystemExit as leave:  # --help; or a signal has stopped a run, which has told its reason already
        status = leave.code if isinstance(leave.code, int) else 0
        return _fail(leave, str(leave), status, args) if status and "--json" in args else status
    except KeyboardInterrupt as stop:
        told = str(stop) and "--json" not in args
        return 130 if told else _fail(stop, str(stop) or "interrupted", 130, args)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        named = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        return _fail(error, named, 2, args)
    except (ValueError, FloatingPointError, ImportError) as error:
        return _fail(error, str(error), 2, args)
    except Exception as error:
        message = f"{type(error).__name__}: {error}; this is a defect of Polypath (POLYPATH_DEBUG=1 shows where)"
        return _fail(error, message, 1, args)


def usage() -> str:
    """What ``polypath --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} SUBCOMMAND ...",
            "",
            "Train one network, run any of its paths.",
            "",
            *lines,
            "",
            f"`{PROGRAM} SUBCOMMAND --help` tells more of each.",
        ]
    )


def _fail(error: BaseException, message: str, status: int, args: Sequence[str]) -> int:
    if os.environ.get("POLYPATH_DEBUG") == "1":
        traceback.print_exception(error)
    line = printable(" ".join(message.split()))
    text = json.dumps({"error": line, "status": status}) if "--json" in args else f"{PROGRAM}: error: {line}"
    say(text, error=True)
    return status
