"""The command ``polypath``: its subcommands and exit statuses.

A subcommand is a function that takes a list of arguments. :data:`COMMANDS` maps each subcommand to its module and its
summary. Heavy modules are imported only once the subcommand is known. The exit status is 0 for success, 2 for bad
input, 130 after Ctrl-C, and 1 for a bug in Polypath or if a part of the request failed. An error is printed as one line
on standard error, with ``--json`` as JSON. ``POLYPATH_DEBUG=1`` also shows tracebacks.
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
    "models": ("polypath.cli.models", "list networks, with their sizes and paths, and the papers' figures"),
    "recipes": ("polypath.cli.train", "list training recipes, or show the fields of one recipe"),
    "train": ("polypath.cli.train", "train a network with a recipe; each field of the recipe is an option"),
    "resume": ("polypath.cli.train", "continue a run that was stopped"),
    "sweep": ("polypath.cli.sweep", "train with several seeds and field values; print mean ± standard deviation"),
    "ladder": ("polypath.cli.ladder", "compare paths of one network with the same paths trained alone"),
    "search": ("polypath.cli.search", "find a run's best paths among all choices, not only the named ones"),
    "bench": ("polypath.cli.bench", "compare any methods by one fixed protocol: error, time, correct answers in time"),
    "paths": ("polypath.cli.paths", "measure error and latency of every named path of a run: table, CSV, figure"),
    "reproduce": ("polypath.cli.reproduce", "run a paper's table or figure: compare measured and published numbers"),
    "explore": ("polypath.cli.explore", "open a web page: drop an image, move the time budget, see which path answers"),
    "report": ("polypath.cli.report", "describe a run on one HTML page: wiring, curves, paths, calibration, galleries"),
    "extract": ("polypath.cli.extract", "save a path of a run as a standalone network"),
    "export": ("polypath.cli.export", "export paths as a bundle, or for ONNX, OpenVINO, torch.export or Triton"),
    "predict": ("polypath.cli.predict", "classify images within a time budget"),
    "serve": ("polypath.cli.serve", "classify images over HTTP, each within its deadline"),
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
    except SystemExit as leave:  # raised by --help, or by a run that was stopped by a signal and has logged why
        status = leave.code if isinstance(leave.code, int) else 0
        return _fail(leave, str(leave), status, args) if status and "--json" in args else status
    except KeyboardInterrupt as stop:
        told = str(stop) and "--json" not in args
        return 130 if told else _fail(stop, str(stop) or "interrupted", 130, args)
    except BrokenPipeError:  # the reader of our output has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        named = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        return _fail(error, named, 2, args)
    except (ValueError, FloatingPointError, ImportError) as error:
        return _fail(error, str(error), 2, args)
    except Exception as error:
        message = f"{type(error).__name__}: {error}; this is a bug in Polypath (POLYPATH_DEBUG=1 shows the traceback)"
        return _fail(error, message, 1, args)


def usage() -> str:
    """Return the text of ``polypath --help``."""
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
            f"`{PROGRAM} SUBCOMMAND --help` shows its options.",
        ]
    )


def _fail(error: BaseException, message: str, status: int, args: Sequence[str]) -> int:
    if os.environ.get("POLYPATH_DEBUG") == "1":
        traceback.print_exception(error)
    line = printable(" ".join(message.split()))
    text = json.dumps({"error": line, "status": status}) if "--json" in args else f"{PROGRAM}: error: {line}"
    say(text, error=True)
    return status
