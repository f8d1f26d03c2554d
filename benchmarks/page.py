"""Makes ``docs/speed.md`` and its figure, only from the result files (``make docs``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import page_deploy
from benchmarks.kinds import RESULTS

EAGER = ("eager", "eager, channels-last")
Results = dict[str, dict[str, Any]]
NEEDED = (
    "training", "inference", "gunn", "roof", "choices", "scaling", "feeding", "gates", "startup", "switches"
)  # fmt: skip
WITH_ROOF = ("training", "training_bf16", "inference")


def load() -> dict[str, Results]:
    """Load all results, by kind of machine. If there are no results, return one kind without results."""
    found: dict[str, Results] = {}
    for file in sorted(RESULTS.glob("*/*.json")):
        found.setdefault(file.parent.name, {})[file.stem] = json.loads(file.read_text())
    return found or {"": {}}


def page(kinds: dict[str, Results] | None = None) -> str:
    """Return the page of results by kind of machine, with the aims side by side. The page also lists benchmarks that
    have not run."""
    kinds = {kind: _one_roof(results) for kind, results in (load() if kinds is None else kinds).items()}
    drawn = any(map(drawable, kinds.values()))
    parts = [HEAD.format(figure=FIGURE if drawn else "")]
    for kind, results in kinds.items():
        parts += _machine(kind, results)
    if "cuda" not in kinds:
        parts.append(NO_GPU)
    parts += _lines(kinds)
    for kind, results in kinds.items():
        if len(kinds) > 1:
            parts.append(f"# On {kind}\n")
        for name, table in (
            ("training", _training), ("inference", _inference), ("roof", _roof), ("switches", _switches),
            ("gunn_speed", _gunn_speed), ("anytime", page_deploy.budgets), ("dynamic_steps", page_deploy.steps),
        ):  # fmt: skip
            if name in results:
                parts += table(results)
    return "\n".join(parts).rstrip() + "\n"


def drawable(results: Results) -> bool:
    """Return whether the results suffice to draw the figure."""
    return {"roof", "training", "inference"} <= results.keys()


HEAD = """# Speed

This page shows the results of `make bench` in `benchmarks/results/KIND/*.json`. Each kind of machine has a folder, and
each file records the processor, versions and revision. Times are medians over turns. In each turn, all tasks that are
compared run one after the other. The MACs of a training step are counted as three times those of the forward pass.

The *roof* of a network is the speed that it would have if each of its convs and matrix products took the best time
found for its shape. For a training step, the roof's time is three times that of the forward pass. Each benchmark
measures the roof together with its networks, and the fastest measured roof is used. Decisions based on these numbers
are in [decisions.md](decisions.md).
{figure}"""

NO_GPU = """No GPU was available, so nothing on this page was measured on a GPU. `make gpu` does this
([how](../CONTRIBUTING.md#on-a-gpu)).
"""

FIGURE = "\n![MACs/s of every network and its roof](images/speed.svg)\n"


def _roofs(results: Results) -> dict[tuple[str, str, int], float]:
    """Return the roof's GMACs/s by network, precision and batch size: the fastest of all benchmarks, since a roof may
    have been measured while the machine was slow."""
    rows = [r for name in WITH_ROOF for r in results.get(name, {}).get("rows", []) if r["of_roof"]]
    rates = [((r["model"], r["precision"], r["batch"]), r["gmacs_per_s"] / r["of_roof"]) for r in rows]
    if roof := results.get("roof"):
        rates += [((r["model"], r["precision"], roof["batch_size"]), r["gmacs_per_s"]) for r in roof["rows"]]
    best: dict[tuple[str, str, int], float] = {}
    for key, rate in rates:
        best[key] = max(best.get(key, 0.0), rate)
    return best


def _one_roof(results: Results) -> Results:
    """Return the results with all shares of the roof computed from :func:`_roofs`."""
    best = _roofs(results)

    def share(row: dict[str, Any]) -> dict[str, Any]:
        key = row["model"], row["precision"], row["batch"]
        return row | {"of_roof": row["of_roof"] and row["gmacs_per_s"] / best[key]}

    measured = {name: results[name] for name in WITH_ROOF if name in results}
    return results | {name: r | {"rows": [share(row) for row in r["rows"]]} for name, r in measured.items()}


def _machine(kind: str, results: Results) -> Iterator[str]:
    for env in [results[name].get("environment", {}) for name in NEEDED if name in results][:1]:
        what = f"{env['device_name']}, {env['threads']} threads, torch {env['torch']}"
        yield f"{kind}: measured on {what}, {env['started'][:10]}."
    for name, reason in results.get("training", {}).get("precisions", {}).items():
        if reason:
            anyway = "; training steps at batch 64 were measured all the same" if f"training_{name}" in results else ""
            yield f"{name}: {reason}{anyway}."
    if missing := [name for name in NEEDED if name not in results]:
        yield f"\nNot measured yet: {', '.join(missing)}."
        yield "`make bench` measures them and `make docs` writes them here."
    yield ""


# --- aims ------------------------------------------------------------------------------------------------------


Promise = tuple[str, str, str, bool]


def promises(results: Results) -> list[Promise]:
    """Return the aims of the benchmarks that have run: name, aim, measured value, whether the aim is reached."""
    found: list[Promise] = []
    for name, promised in PROMISED.items():
        if name in results:
            found += promised(results[name])
    return found


def _line(what: str, value: float, aim: float, *, most: bool = False, form: str = ".2f") -> Promise:
    sign = "at most" if most else "at least"
    return what, f"{sign} {aim:g}", format(value, form), value <= aim if most else value >= aim


def _gunn(gunn: dict[str, Any]) -> Iterator[Promise]:
    for what, key, aim in (("inference", "inference_factor", 2.5), ("training step", "training_factor", 2.0)):
        said = f"GUNN-15 {what}, batch 64: speed relative to the concatenating version"
        if (as_written := gunn.get(f"{key}_as_written")) is not None:
            yield _line(f"{said} as written", as_written, aim)
        yield _line(f"{said} in its better layout (the roof allows {gunn[f'{key}_of_roof']:.2f})", gunn[key], aim)
    yield _line(
        "GUNN-15: memory saved for the backward pass relative to SUNN-15", gunn["held_over_sunn"], 1.1, most=True
    )
    if process := gunn["process_peak_bytes"]:
        ratio = process["gunn15"] / process["sunn15"]
        yield _line("GUNN-15: memory of the training process relative to SUNN-15", ratio, 1.1, most=True)


def _steps(training: dict[str, Any]) -> Iterator[Promise]:
    for row in _rows(training["ratios"], batch=64):
        what = f"training step of {row['model']}, batch 64, {row['precision']}: MACs/s relative to {row['rival']}"
        yield _line(what, row["ratio"], 0.4 if row["model"].startswith("gunn") else 0.8)
    for row in _rows(training["rows"], model="crescendonet_128", batch=64):
        what = f"crescendonet_128 training step, batch 64, {row['precision']}: share of the roof"
        yield _line(what, row["of_roof"], 0.6)


def _answers(inference: dict[str, Any]) -> Iterator[Promise]:
    own = _rows(inference["rows"], whose="ours")
    for model, batch, precision in dict.fromkeys((r["model"], r["batch"], r["precision"]) for r in own):
        best = max(_rows(own, model=model, batch=batch, precision=precision), key=lambda r: r["over_eager"])
        where = f"{model} inference, batch {batch}, {precision}, {best['way']}"
        if batch == 64 and model in ("crescendonet_128", "fractalnet20"):
            yield _line(f"{where}: share of the roof", best["of_roof"], 0.8)
        aim = 4.0 if (model, batch) == ("dfn_mr56", 1) else 1.0
        yield _line(f"{where}: speed relative to the better eager form", best["over_eager"], aim)


def _choices(choices: dict[str, Any]) -> Iterator[Promise]:
    intercept = abs(choices["intercept_share"])
    yield _line(
        "step time against alive MACs, 50 choices: intercept as a share of a step",
        intercept,
        0.1,
        most=True,
        form=".3f",
    )
    yield _line("step time against alive MACs, 50 choices: R²", choices["r_squared"], 0.95, form=".3f")


def _scaling(scaling: dict[str, Any]) -> Iterator[Promise]:
    for key, what in (
        ("inference_ms_per_image", "inference time"), ("training_ms_per_image", "training time"),
        ("held_mib_per_image", "memory saved for the backward pass"),
    ):  # fmt: skip
        value = scaling["largest_over_smallest"][key]
        yield _line(f"{what} per image, batch 64 to 512: largest divided by smallest", value, 1.15, most=True)
    if "processes" in scaling:
        yield _line(
            "two processes (gloo) with one core each: images/s relative to one process",
            scaling["processes"]["factor"],
            1.6,
        )


def _feeding(feeding: dict[str, Any]) -> Iterator[Promise]:
    row = min(feeding["rows"], key=lambda r: r["loader_over_training"])
    yield _line(
        f"loader alone: images/s relative to training ({row['model']})", row["loader_over_training"], 5.0, form=".1f"
    )


def _gates(gates: dict[str, Any]) -> Iterator[Promise]:
    yield _line("DRNN's gates: share of the blocks' MACs", gates["gates_share_of_macs"], 0.02, most=True, form=".4f")
    yield _line("DRNN's gates: share of the blocks' time", gates["gates_share_of_time"], 0.02, most=True, form=".3f")


def _startup(startup: dict[str, Any]) -> Iterator[Promise]:
    yield _line(
        "`import polypath` with networks: time relative to `import torch`", startup["import_ratio"], 1.3, most=True
    )


PROMISED: dict[str, Callable[[dict[str, Any]], Iterator[Promise]]] = {
    "gunn": _gunn, "training": _steps, "training_bf16": _steps, "inference": _answers, "choices": _choices,
    "scaling": _scaling, "feeding": _feeding, "gates": _gates, "startup": _startup,
}  # fmt: skip


def _lines(kinds: dict[str, Results]) -> Iterator[str]:
    found = {kind: {line[:2]: line[2:] for line in promises(results)} for kind, results in kinds.items()}
    if not any(found.values()):
        return
    head = " | ".join(f"{kind}, measured | holds" if len(found) > 1 else "measured | holds" for kind in found)
    yield f"## Aims\n\n| what | aim | {head} |\n|---|---|{'---|---|' * len(found)}"
    for line in dict.fromkeys(line for lines in found.values() for line in lines):
        cells = [_cells(lines.get(line)) for lines in found.values()]
        yield f"| {' | '.join((*line, *cells))} |"
    yield ""


def _cells(measured: tuple[str, bool] | None) -> str:
    if measured is None:
        return "not measured |"
    return f"{measured[0]} | {'yes' if measured[1] else '**no**'}"


# --- tables ----------------------------------------------------------------------------------------------------


def _training(results: Results) -> Iterator[str]:
    yield "## Training steps\n\nThe last column is the memory that the forward pass saves for the backward pass.\n"
    yield "| network | batch | precision | s (fastest to slowest) | images/s | GMACs/s | of the roof | saved, MiB |"
    yield "|---|---|---|---|---|---|---|---|"
    seen = set()
    for r in [*results["training"]["rows"], *results.get("training_bf16", {}).get("rows", [])]:
        if (key := (r["model"], r["batch"], r["precision"])) not in seen:
            seen.add(key)
            yield f"| {r['model']} | {r['batch']} | {r['precision']} | {_time(r)} | {_speed(r)} | {r['held_mib']:.0f} |"
    yield ""


def _inference(results: Results) -> Iterator[str]:
    yield "## Inference\n"
    yield "The last column is the speed relative to the better of the two eager forms.\n"
    yield "| network | batch | precision | way | s (fastest to slowest) | images/s | GMACs/s | of the roof | × eager |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in results["inference"]["rows"]:
        where = f"{r['model']} | {r['batch']} | {r['precision']} | {r['way']}"
        yield f"| {where} | {_time(r)} | {_speed(r)} | {r['over_eager']:.2f} |"
    yield ""


def _roof(results: Results) -> Iterator[str]:
    yield f"## The roof, batch {results['roof']['batch_size']}\n"
    yield "| network | precision | GMACs per image | shapes | GMACs/s |\n|---|---|---|---|---|"
    for r in results["roof"]["rows"]:
        size = f"{r['macs'] / 1e9:.3f} | {r['shapes']} | {r['gmacs_per_s']:.1f}"
        yield f"| {r['model']} | {r['precision']} | {size} |"


def _switches(results: Results) -> Iterator[str]:
    yield "\n## Effect of each rewrite\n"
    yield "Speed of inference relative to eager in channels-last. `summed` is the form that `polypath.fuse` makes.\n"
    yield "| network | batch | folded | packed | summed | all |\n|---|---|---|---|---|---|"
    rows = results["switches"]["rows"]
    for model, batch in dict.fromkeys((r["model"], r["batch"]) for r in rows):
        own = {r["form"]: r["over_eager"] for r in rows if (r["model"], r["batch"]) == (model, batch)}
        cells = " | ".join(f"{own[form]:.2f}" for form in ("folded", "packed", "summed", "all"))
        yield f"| {model} | {batch} | {cells} |"


def _gunn_speed(results: Results) -> Iterator[str]:
    measured = results["gunn_speed"]
    env, rows = measured["environment"], measured["rows"]
    machine = f"{env.get('device_name') or env['device']}, {env['threads']} thread{'s' if env['threads'] != 1 else ''}"
    yield "\n## GUNN compared with ResNeXt and DenseNet\n"
    yield 'GUNN, §4.3: "The resulted models run at the speed between ResNeXt and DenseNet". The networks are from its'
    yield f"Table 3. Times are seconds per image in float32, on {machine}.\n"
    yield "| network | parameters | inference | training step |\n|---|---|---|---|"
    for r in rows:
        yield f"| {r['model']} | {r['params']:,} | {r['inference_s']:.4f} | {r['training_s']:.4f} |"
    told = (
        f"in {name} it {_between(rows, what)}"
        for name, what in (("inference", "inference_s"), ("training", "training_s"))
    )
    yield f"\nOn this machine, {' and '.join(told)}.\n"


def _between(rows: list[dict[str, Any]], what: str) -> str:
    """Return a text that says whether the first network's time is between those of the others."""
    own, *others = (row[what] for row in rows)
    return "**holds**" if min(others) <= own <= max(others) else "**does not hold**"


def _time(row: dict[str, Any]) -> str:
    return f"{row['median_s']:.4f} ({row['min_s']:.4f} to {row['max_s']:.4f})"


def _speed(row: dict[str, Any]) -> str:
    roof = "" if row["of_roof"] is None else f"{row['of_roof']:.2f}"
    return f"{row['images_per_s']:.1f} | {row['gmacs_per_s']:.1f} | {roof}"


def _rows(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


# --- figure ----------------------------------------------------------------------------------------------------

WHERE = {"precision": "float32", "batch": 64}
ROW, LEFT, WIDE, COLOURS = 16, 210, 420, {"training": "#4c72b0", "eager": "#bbbbbb", "best": "#dd8452"}


def figure(results: Results | None = None) -> str:
    """Draw ``images/speed.svg``: MACs/s of every network at batch 64 (training, eager and best inference) and its roof.
    The results are those of the first kind of machine that has all of these."""
    if results is None:
        kinds = load().values()
        results = next(filter(drawable, kinds), next(iter(kinds)))
    roofs = {model: rate for (model, *where), rate in _roofs(results).items() if where == list(WHERE.values())}
    bars: dict[str, dict[str, float]] = {}
    for row in _rows(results["inference"]["rows"], **WHERE):
        kind = "eager" if row["way"] in EAGER else "best"
        own = bars.setdefault(row["model"], {})
        own[kind] = max(own.get(kind, 0.0), row["gmacs_per_s"])
    for row in _rows(results["training"]["rows"], **WHERE):
        bars.setdefault(row["model"], {})["training"] = row["gmacs_per_s"]
    return _svg(bars, roofs)


def _svg(bars: dict[str, dict[str, float]], roofs: dict[str, float]) -> str:
    top = max([*roofs.values(), *(v for own in bars.values() for v in own.values())])
    at: Callable[[float], float] = lambda value: round(value / top * WIDE, 1)  # noqa: E731
    height = 46 + sum(len(own) * 9 + ROW for own in bars.values())
    wide = LEFT + WIDE + 70
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{height}" font-family="sans-serif">']
    out.append(f'<rect width="{wide}" height="{height}" fill="#fff"/>')  # pages can be dark
    out.append(f'<text x="{LEFT}" y="14" font-size="11">GMACs/s at batch 64, float32; the line is the roof</text>')
    for i, (kind, said) in enumerate((("training", "training"), ("eager", "eager"), ("best", "fused or exported"))):
        x = LEFT + i * 110
        out.append(f'<rect x="{x}" y="22" width="9" height="9" fill="{COLOURS[kind]}"/>')
        out.append(f'<text x="{x + 13}" y="30" font-size="10">{said}</text>')
    y = 46
    for model, own in bars.items():
        out.append(f'<text x="{LEFT - 6}" y="{y + 9}" font-size="10" text-anchor="end">{model}</text>')
        begin = y
        for kind, colour in COLOURS.items():
            if kind in own:
                out.append(f'<rect x="{LEFT}" y="{y}" width="{at(own[kind])}" height="8" fill="{colour}"/>')
                y += 9
        if model in roofs:
            x = LEFT + at(roofs[model])
            out.append(f'<line x1="{x}" y1="{begin - 2}" x2="{x}" y2="{y + 1}" stroke="black"/>')
            out.append(f'<text x="{x + 4}" y="{begin + 8}" font-size="9">{roofs[model]:.0f}</text>')
        y += ROW
    return "\n".join([*out, "</svg>"]) + "\n"
