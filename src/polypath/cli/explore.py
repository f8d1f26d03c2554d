"""``polypath explore``: a page for trying a network within a time budget."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

from polypath.cli.output import say
from polypath.cli.parser import Parser, number_of
from polypath.core.checks import whole

LOG = logging.getLogger(__name__)


def explore(argv: list[str]) -> None:
    """Serve a web page on which you drop an image, move the time budget, and see which path answers. The page also
    shows how long this path takes and how often its answers are correct. DIR is a bundle, a finished run or a saved
    network; the default is the network that comes with Polypath."""
    parser = Parser("explore", explore.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="bundle, finished run or saved network")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument(
        "--port", type=number_of(int, whole(1, 65535)), help="port (default: the first free port from 7860 on)"
    )
    parser.add_allow_host()
    parser.add_argument("--runtime", default="auto", help="runtime of the network (auto: the fastest installed one)")
    parser.add_profile()
    args = parser.read(argv)

    from polypath.explore.anytime import open_subject
    from polypath.explore.page import gradio, serving
    from polypath.serve.callers import Callers, is_loopback

    names = Callers((args.host, *args.allow_host)).hosts  # raises for a bad host name before anything is measured
    gradio()  # raises for a missing extra before anything is measured
    subject = open_subject(args.folder, args.runtime, args.profile)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with serving(subject, host=args.host, port=args.port, names=names) as url:
        say(f"{subject.title}: {url} (press Ctrl-C to stop)")
        if not is_loopback(args.host):
            LOG.warning("the page is open to anyone who can reach this address; it has no password")
        stop.wait()
