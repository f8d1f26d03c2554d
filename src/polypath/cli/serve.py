"""``polypath serve``: serve a bundle over HTTP. Each request is answered within its deadline or rejected at once."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from polypath.cli.output import say
from polypath.cli.parser import Parser, number_of, positive
from polypath.cli.patience import patience
from polypath.cli.tables import print_json
from polypath.core.checks import number, whole

NEEDS = ("fastapi", "fastapi_offline", "uvicorn", "h11", "prometheus_client", "python_multipart")

LOG = logging.getLogger(__name__)


def serve(argv: list[str]) -> None:
    """Answer POST /v1/predict over HTTP: classify the image of each request by the most accurate path that fits its
    budget. The service is reachable from this machine only, unless --host is given. If POLYPATH_API_KEY is set, clients
    must send it. On SIGTERM or Ctrl-C, the service answers the accepted requests, then exits."""
    parser = Parser("serve", serve.__doc__)
    parser.add_argument(
        "bundle", nargs="?", type=Path, help="folder of a bundle or of a saved network (default: the pretrained bundle)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument(
        "--port",
        type=number_of(int, whole(0, 65535)),
        default=8000,
        help="port to listen on, 0 for any free one (default 8000)",
    )
    parser.add_argument("--without-key", action="store_true", help="do not require POLYPATH_API_KEY for another --host")
    parser.add_allow_host()
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin (https://example.org; *: any origin) send requests; repeatable",
    )
    parser.add_argument(
        "--runtime", default="auto", help="one of auto, openvino, onnxruntime, torch, torch-compiled, cuda-graphs"
    )
    parser.add_precision()
    parser.add_argument(
        "--threads",
        type=positive,
        help="number of threads of one inference (default: all cores but one, which HTTP uses)",
    )
    parser.add_profile()
    parser.add_argument(
        "--budget-ms", type=float, default=1000.0, help="budget of requests that state none (default 1000)"
    )
    parser.add_argument(
        "--max-batch", type=positive, default=16, help="largest number of images in a batch (default 16)"
    )
    parser.add_argument(
        "--max-body-mb",
        type=number_of(float, number(above=0, high=1024)),
        default=8.0,
        help="largest size of a request's body in MiB (default 8)",
    )
    parser.add_argument(
        "--max-pixels", type=positive, default=2**25, help="largest number of pixels of an image (default 33554432)"
    )
    parser.add_argument(
        "--max-requests", type=positive, default=512, help="largest number of requests in progress (default 512)"
    )
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="run on a Ray cluster (auto: the running one, local: a new one)"
    )
    parser.add_argument("--replicas", type=positive, help="number of replicas on the cluster (default 1)")
    parser.add_json()
    args = parser.read(argv)

    from polypath.core.extras import need

    for package in NEEDS:
        need(package, "polypath serve", "serve")

    from polypath.serve.callers import Callers, is_loopback
    from polypath.serve.limits import KEY_VARIABLE, Key, RequestLimits
    from polypath.serve.server import listen
    from polypath.serve.service import Options

    limits = RequestLimits(body_bytes=int(args.max_body_mb * 2**20), pixels=args.max_pixels, requests=args.max_requests)
    options = Options(budget_ms=args.budget_ms, max_batch=args.max_batch, limits=limits)
    if args.replicas is not None and args.cluster is None:
        raise ValueError(f"--replicas {args.replicas}: is only allowed on a cluster; add --cluster ADDRESS")
    args.replicas = args.replicas or 1
    callers = Callers((args.host, *args.allow_host), tuple(args.cors))
    key = Key(os.environ.get(KEY_VARIABLE))
    if not key and not is_loopback(args.host) and not args.without_key:
        raise ValueError(
            f"--host {args.host}: other machines could reach the service; set {KEY_VARIABLE}, or allow this with "
            "--without-key"
        )
    with listen(args.host, args.port) as bound:
        from polypath.serve.server import serve as run

        host, port = bound.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if args.cluster is not None:
            stopped_by = _on_cluster(args, options, key, callers, bound, url)
        else:
            app = _here(args, options, key, callers)
            stopped_by = run(app, bound, lambda: _tell(args, app.model, url, bool(key)))
    if stopped_by == signal.SIGINT:
        LOG.info("the service was stopped; all accepted requests were answered")
        raise KeyboardInterrupt("stopped")


def _here(args: Any, options: Any, key: Any, callers: Any) -> Any:
    from polypath.serve.app import App

    with patience():
        model = make_model(args.bundle, args.runtime, args.threads, args.profile, args.precision)
        app = App(model, options, key, callers)
        app.measure()
    return app


def _on_cluster(args: Any, options: Any, key: Any, callers: Any, bound: Any, url: str) -> int:
    from polypath.serve import ray_app
    from polypath.serve.server import serve as run

    bundle = args.bundle.resolve() if args.bundle is not None else None
    make = partial(make_model, bundle, args.runtime, args.threads, args.profile, args.precision)
    name = f"polypath-{bound.getsockname()[1]}"
    handle, facts = ray_app.start(
        make, options, address=args.cluster, name=name, replicas=args.replicas, cpus=args.threads or 1
    )
    try:
        app = ray_app.ClusterApp(handle, facts, options, key, callers)
        return run(app, bound, lambda: _tell(args, facts, url, bool(key), replicas=args.replicas))
    finally:
        ray_app.stop(name)


def make_model(
    bundle: Path | None, runtime: str, threads: int | None, profile: Any = "stored", precision: str = "auto"
) -> Any:
    """Open the model of a bundle. Replicas on a cluster call this function, too."""
    # Pillow's warnings about a client's unusual images do not belong in the service's log
    warnings.filterwarnings("ignore", module=r"PIL\.")
    from polypath.deploy import AnytimePredictor, Bundle
    from polypath.profiling.cores import cores
    from polypath.serve.model import BundleModel

    threads = threads or max(1, cores() - 1)
    opened = Bundle.open(bundle)
    return BundleModel(AnytimePredictor(opened, runtime, threads, precision=precision, profile=profile))


def _tell(args: Any, model: Any, url: str, key: bool, **more: int) -> None:
    facts = {"url": url, "bundle": model.name, "paths": [path.name for path in model.paths], "key": key}
    if args.json:
        print_json(facts | more | {"pid": os.getpid()})
    else:
        keys = "clients must send the key" if key else "no key is needed"
        where = "".join(f" by {number} {what}" for what, number in more.items())
        say(f"{model.name}: {len(model.paths)} paths, {len(model.classes)} classes{where} at {url}; {keys}")
        say(f"try: curl -F image=@photo.jpg -F budget_ms=50 {url}/v1/predict")
        say(f"API documentation: {url}/docs; press Ctrl-C to stop")
