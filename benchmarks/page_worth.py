"""``docs/worth.md``: what the paths of a network are worth, made only from result files (``make docs``)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.deadline import FIXED, LATE, LIVE
from benchmarks.page import Results, load
from polypath.core.checks import listed
from polypath.worth.result import LadderResult, load_ladder

LADDERS = Path(__file__).parent.parent / "docs" / "results" / "ladders"
RECIPES = ("fractalnet-cifar10-fast", "crescendonet-cifar10-fast", "resnet-cifar10-fast")


def page(kinds: Mapping[str, Results] | None = None, ladders: Mapping[str, LadderResult] | None = None) -> str:
    """Return the page. It begins with a summary of what was measured, and ends with what was not."""
    kinds = load() if kinds is None else kinds
    ladders = _ladders() if ladders is None else ladders
    traces = {kind: results["deadline"] for kind, results in kinds.items() if "deadline" in results}
    parts = ["# What the paths are worth\n"]
    parts += [textwrap.fill(" ".join(_summary(traces, ladders)), 120, break_on_hyphens=False)]
    if traces:
        parts.append(HEAD)
    for kind, found in traces.items():
        parts += _in_time(kind, found)
    if ladders:
        parts += _alone(ladders)
    parts += _missing(kinds, traces, ladders)
    return "\n".join(parts).rstrip() + "\n"


def _ladders() -> dict[str, LadderResult]:
    return {name: load_ladder(LADDERS / name) for name in RECIPES if (LADDERS / name / "result.json").is_file()}


# --- in one sentence for each question -----------------------------------------------------------------------------


def _summary(traces: Mapping[str, Results], ladders: Mapping[str, LadderResult]) -> Iterator[str]:
    for found in traces.values():
        one = found["shipped"]
        rows = {row["way"]: row for row in one["rows"]}
        ours, fixed = rows[LIVE], rows[FIXED]
        yield (
            "Under a changing time budget, and with a neighbour on the processor, the network that comes with Polypath "
            f"gives {ours['value']:.1%} of answers correctly and in time. Its best single path gives "
            f"{fixed['value']:.1%}."
        )
        if refused := one["used"].get("refused"):
            yield (
                f"The predictor refuses {refused:,} of {one['requests']:,} requests, because it expects no path to be "
                "in time for 99% of such requests. The single path tries them all."
            )
        if late := rows.get(LATE):
            yield (
                "With `allow_late`, the predictor uses the path that is most likely to be correct and in time, and "
                f"gives {late['value']:.1%}."
            )
    taxes = [f"{result.tax['epochs'].tax:+.1f} points in a {_family(name)}" for name, result in ladders.items()]
    if taxes:
        yield (
            "In networks that train with drop-path or stochastic depth, the error of a path minus that of the same "
            f"path trained alone is on average {listed(taxes)}."
        )
    if not traces and not ladders:
        yield "Nothing has been measured yet."


def _family(recipe: str) -> str:
    return {"fractalnet": "FractalNet", "crescendonet": "CrescendoNet", "resnet": "ResNet"}[recipe.partition("-")[0]]


# --- correct and in time ---------------------------------------------------------------------------------------------


HEAD = """
## Correct and in time

`python -m benchmarks deadline` sends the requests of the [protocol's](protocol.md) trace, with bursts of tight budgets
and with a neighbour program that keeps every core busy at times. An answer that is late or refused counts as wrong.
Budgets are multiples of the median time of the most accurate path on the idle machine. Without `allow_late`, the
predictor uses the most accurate path that is in time for 99.5% of requests, or refuses. With `allow_late`, it uses the
path that is most likely to be correct and in time. *Measured times* means that the paths are chosen by these rules
after the fact, from times of the paths alone. The best fixed path is chosen in hindsight. The *oracle of times* knows
how long each path will take; the other oracle also knows the answers. These policies have two advantages over the
predictors. Their times are those of paths that run many times in succession, with their weights in the processor's
cache, and they do not include the choice of the path.
"""


def _in_time(kind: str, found: Results) -> Iterator[str]:
    env = found.get("environment", {})
    if env:
        yield f"{kind}: {env['device_name']}, {env['threads']} threads, {env['started'][:10]}."
    for which, one in ((key, found[key]) for key in ("shipped", "ladder") if key in found):
        what = "The network that comes with Polypath" if which == "shipped" else "The FractalNet of the ladder below"
        apart = "" if which == "shipped" else ", beside its paths trained alone (*separate networks*)"
        refused = f", {one['used'].get('refused', 0):,} of them refused by the predictor"
        yield f"\n{what}{apart}: {one['requests']:,} requests{refused}; {one['runtime']}.\n"
        yield "| policy | correct and in time | 95% interval | only the predictor | only this policy |"
        yield "|---|---|---|---|---|"
        for row in one["rows"]:
            name = f"the best fixed path, `{one['fixed']}`" if row["way"] == FIXED else row["way"]
            ends = f"{row['low']:.1%} to {row['high']:.1%}"
            yield f"| {name} | {row['value']:.1%} | {ends} | {row['only_ours']} | {row['only_theirs']} |"
        yield "\n| network | path | test error, % | ms, idle: median, 99% | ms, with the neighbour: median, 99% |"
        yield "|---|---|---|---|---|"
        own = one["bundle"]
        for path in one["paths"]:
            network = "one network" if path["bundle"] == own else path["bundle"]
            calm, busy = (path.get(f"{key}_p50_p99_ms") for key in ("calm", "with_neighbour"))
            yield f"| {network} | `{path['path']}` | {path['error']:.2f} | {_pair(calm)} | {_pair(busy)} |"
        if gain := one["hypervolume"].get("gain"):
            yield (
                "\nThe hypervolume of error against milliseconds (larger is better) of the one network, minus that of "
                f"the separate networks, is {gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]."
            )


def _pair(values: list[float] | None) -> str:
    return "–" if values is None else f"{values[0]:.2f}, {values[1]:.2f}"


# --- in one network and alone ----------------------------------------------------------------------------------------


ALONE = """
## In one network and alone

[`polypath ladder`](ladder.md) trains each path of a network again as a plain network, for as many epochs. The *tax* is
the error in the network (batch-norm recalibrated for the path) minus the error alone, in points, with a 95% interval
over seeds and test images. The networks are small and train for five epochs with drop-path, so their errors show how
paths compare, not how accurate a network can be. These taxes are the baseline for better ways to train paths.
"""


def _alone(ladders: Mapping[str, LadderResult]) -> Iterator[str]:
    yield ALONE
    for name, result in ladders.items():
        yield f"### `polypath ladder {name}`\n"
        yield "| path | MACs | ms | in the network, own statistics, % | recalibrated, % | alone, % | tax |"
        yield "|---|---|---|---|---|---|---|"
        for row in result.rows:
            of = row.alone["epochs"]
            ms = "–" if row.p50_ms is None else f"{row.p50_ms:.2f}"
            yield (
                f"| {row.name} | {row.macs / 1e6:.1f} M | {ms} | {row.error_own:.2f} | {row.error:.2f} | "
                f"{of.error:.2f} | {of.tax:+.2f} [{of.low:+.2f}, {of.high:+.2f}] |"
            )
        tax, env, cost = result.tax["epochs"], result.environment, result.pflop
        yield (
            f"\nMean tax {tax.tax:+.2f} [{tax.low:+.2f}, {tax.high:+.2f}]. Training took {cost['net']:.3f} PFLOP for "
            f"the network and {cost['epochs']:.3f} for all paths alone, per seed. {len(result.seeds)} seeds, "
            f"{result.images:,} test images, {result.test_evaluations} evaluations on the test split; "
            f"{env['device_name']}, {env['instructions']}, torch {env['torch']}, revision `{env['revision'][:12]}`.\n"
        )
        if (LADDERS / name / "figure.svg").is_file():
            yield f"![Error in one network and alone, and the tax](results/ladders/{name}/figure.svg)\n"


# --- what is missing -------------------------------------------------------------------------------------------------


def _missing(
    kinds: Mapping[str, Results], traces: Mapping[str, Results], ladders: Mapping[str, LadderResult]
) -> Iterator[str]:
    lines = []
    if not traces:
        lines.append("Answers correct and in time: `python -m benchmarks deadline`.")
    lines += [f"The tax of `{name}`: `polypath ladder {name}`." for name in RECIPES if name not in ladders]
    lines += [
        f"More than {len(result.seeds)} seed{'s' * (len(result.seeds) > 1)} of `{name}`; three are planned."
        for name, result in ladders.items()
        if len(result.seeds) < 3
    ]
    kinds_of_twins = {kind for result in ladders.values() for kind in result.kinds}
    if ladders and kinds_of_twins == {"epochs"}:
        lines.append("Paths trained alone for equal PFLOP in total, or taught by the whole network: `polypath ladder`.")
    if not any("outside" in results for results in kinds.values()):
        lines.append(
            "What you could deploy instead for the same training cost, such as independent ResNets, an early-exit "
            "network, a slimmable ResNet, smaller images or airbench's network: `python -m benchmarks outside` "
            "([how](ladder.md#comparison-with-other-networks))."
        )
    if lines:
        yield "## Not measured yet\n"
        yield from (f"- {line}" for line in lines)
