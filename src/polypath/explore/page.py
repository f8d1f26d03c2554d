"""The Gradio page. It contacts no other host: it uses system fonts, no analytics and no share link."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from polypath.data.images import LIMITS
from polypath.explore import uploads
from polypath.explore.examples import example_files
from polypath.explore.subject import Subject
from polypath.explore.view import View, budgets, look
from polypath.serve.callers import Callers
from polypath.serve.limits import Guard, Key

EXTRA = "the page needs Gradio: pip install 'polypath[explore]'"
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
TOP_K = 5
AGAIN = "Measure the times again"
CSS = """
.gradio-container{max-width:1240px!important;margin:auto}
.pp-head h1{margin:0 0 .15rem;font-size:1.35rem}
.pp-head p{margin:0;opacity:.75}
.gradio-container{--pp-live:#1f5fa8;--pp-dead:#c9ced6;--pp-surface:#fff;--pp-budget:#b3541e}
.dark .gradio-container{--pp-live:#7db4f0;--pp-dead:#475061;--pp-surface:#1b2130;--pp-budget:#f0a064}
.pp-off{--pp-live:var(--pp-dead)}
.pp-narrow{display:none}
@media (max-width:640px){.pp-wide{display:none}.pp-narrow{display:block}}
.pp-facts{display:flex;flex-wrap:wrap;gap:.6rem 1.6rem;margin:0}
.pp-facts dt{font-size:.75rem;opacity:.7}
.pp-facts dd{margin:0;font-size:1.05rem;font-weight:600;font-variant-numeric:tabular-nums}
.pp-legend,.pp-loops{margin:.4rem 0 0;font-size:.8rem}
.pp-legend{opacity:.7}
.pp-message{padding:.7rem .9rem;border:1px solid var(--pp-budget);border-left-width:5px;border-radius:6px}
.pp-message{font-weight:600}
.pp-note{margin:.4rem 0 0;font-size:.85rem}
#image img{width:100%;height:100%;object-fit:contain}
footer{display:none!important}
"""
NAME_EXAMPLES = r"""<script>
new MutationObserver(() => {
  for (const image of document.querySelectorAll("button.gallery-item:not([aria-label]) img")) {
    const file = decodeURIComponent(image.src).split("/").pop();
    image.closest("button").setAttribute("aria-label", "example: " + file.replace(/\.\w+$/, "").replaceAll("-", " "));
  }
}).observe(document, { childList: true, subtree: true });
</script>"""  # Gradio's example buttons have no accessible name
SMALL = "img{image-rendering:pixelated}"  # show digits of a few pixels without smoothing


def build(subject: Subject, folder: Path) -> Any:
    """Build the page as ``gradio.Blocks``. Example images are written into ``folder``.

    Raises:
        ImportError: Gradio is not installed.
    """
    gr = gradio()
    scale, first = budgets(subject), look(subject, None, budgets(subject).value)
    with gr.Blocks(title=f"Polypath: {subject.title}", analytics_enabled=False) as page:
        gr.HTML(_head(subject))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    type="filepath", sources=["upload", "clipboard"], label="Image", height=230, elem_id="image"
                )
                image.preprocess = _file_of  # the predictor reads the file, applies limits and reports errors
                gr.Examples([[str(f)] for f in example_files(subject, folder)], [image], label="Examples")
                budget = gr.Slider(
                    scale.low, scale.high, scale.value, step=scale.step, label="Time budget (ms)", elem_id="budget"
                )
                message = gr.HTML(_message(first), elem_id="message", padding=False)
                again = gr.Button(AGAIN, size="sm", elem_id="measure")
                answer = gr.Label(num_top_classes=TOP_K, label="Answer", elem_id="answer")
            with gr.Column(scale=5, min_width=340):
                facts = gr.HTML(first.facts, elem_id="facts", padding=False)
                wiring = gr.HTML(first.wiring, elem_id="wiring", padding=False)
                curve = gr.HTML(first.curve, elem_id="curve", padding=False)

        def show(file: str | None, budget_ms: float | None) -> list[Any]:
            view = look(subject, Path(file) if file else None, budget_ms)
            return [_message(view), dict(view.answer) or None, view.facts, view.wiring, view.curve]

        def measure(file: str | None, budget_ms: float | None) -> list[Any]:
            subject.measure()
            new = budgets(subject)
            value = min(max(budget_ms or new.value, new.low), new.high)
            slider = gr.Slider(minimum=new.low, maximum=new.high, step=new.step, value=value)
            return [gr.Button(AGAIN, interactive=True), slider, *show(file, value)]

        shown = [message, answer, facts, wiring, curve]
        # one run at a time, since concurrent runs would distort each other's times
        one_by_one = {"concurrency_limit": 1, "concurrency_id": "processor", "api_visibility": "private"}
        moved = [image.change, budget.change]
        gr.on(moved, show, [image, budget], shown, show_progress="hidden", trigger_mode="always_last", **one_by_one)
        waiting = again.click(
            lambda: gr.Button("Measuring …", interactive=False), None, again, queue=False, api_visibility="private"
        )
        waiting.then(measure, [image, budget], [again, budget, *shown], show_progress="hidden", **one_by_one)
    return page


@contextmanager
def serving(
    subject: Subject, *, host: str = "127.0.0.1", port: int | None = None, names: tuple[str, ...] = ()
) -> Iterator[str]:
    """Serve the page in the background inside the context, and yield its address.

    Uploads and examples are in a temporary folder, which is removed at the end.

    Args:
        host: address to listen on; any address other than loopback opens the page to the network.
        port: port to listen on; None means the first free port from 7860 on.
        names: host names that requests may use, in addition to loopback and ``host`` (:class:`Callers`).

    Raises:
        ImportError: Gradio is not installed.
        ValueError: the port is in use.
    """
    gr = gradio()
    with tempfile.TemporaryDirectory(prefix="polypath-explore-") as folder, _uploads_in(folder):
        page = build(subject, Path(folder))
        try:
            page.queue(max_size=32).launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                max_file_size=LIMITS.bytes,
                app_kwargs={"middleware": _bounds(Path(folder), (host, *names))},
                theme=gr.themes.Default(primary_hue="blue", font=FONT, font_mono=MONO),
                head=NAME_EXAMPLES,
                css=CSS + (SMALL if subject.channels == 1 else ""),
            )
            yield page.local_url
        except OSError as error:
            if "empty port" not in str(error):
                raise
            where = f"port {port}" if port is not None else "every port that Gradio tries"
            raise ValueError(f"{where} on {host} is in use; choose another --port") from None
        finally:
            page.close(verbose=False)


def _bounds(folder: Path, names: tuple[str, ...]) -> list[Any]:
    from starlette.middleware import Middleware

    guard = {"limits": uploads.REQUESTS, "key": Key(None), "watch": lambda *_: None, "callers": Callers(names)}
    return [Middleware(Guard, **guard), Middleware(uploads.Uploads, folder=folder, most=uploads.MOST_BYTES)]


@contextmanager
def _uploads_in(folder: str) -> Iterator[None]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def gradio() -> Any:
    """Import and return Gradio. Importing :mod:`polypath.core.silence` has already switched off Gradio's analytics.

    Raises:
        ImportError: Gradio is not installed. The message says what to install.
    """
    try:
        import gradio as package
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ImportError(EXTRA) from None
    return package


def _file_of(upload: Any) -> str | None:
    return upload.path if upload is not None else None


def _head(subject: Subject) -> str:
    return (
        f'<div class="pp-head"><h1>{escape(subject.title)}</h1><p>{len(subject.paths)} paths, one set of weights. '
        f"Move the budget: the most accurate path within it answers. {escape(subject.machine)}.</p></div>"
    )


def _message(view: View) -> str:
    told = f'<div class="pp-message" role="alert">{escape(view.message)}</div>' if view.message else ""
    note = f'<p class="pp-note">{escape(view.note)}</p>' if view.note else ""
    return f'<div aria-live="polite">{told}{note}</div>'
