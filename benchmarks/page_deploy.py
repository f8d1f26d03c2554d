"""The deployment part of the speed page: budgets, and gates that decide step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Results = dict[str, dict[str, Any]]

ANYTIME = """`python -m benchmarks anytime` sends one image at a time. *In time* is the share of answers within the
budget. *Right* is the share of answers by the right path: the most accurate path whose 99th percentile fitted the
budget. To find it, each path runs alone between the requests (at the largest budget, it is the whole network).
*Overhead* is the median of the predictor's time minus the median of the runtime's call, for the path with the largest
overhead.
"""

STEPS = """`python -m benchmarks dynamic_steps` compares a network whose gates decide with the same network with all
gates open, in the same runtime, and with networks without gates. The last column is the share of time that skipped
loops save, divided by the share of MACs that they save (aim: at least {limit}).

| batch | network | error, % | MMACs per image | ms per image | saved time / saved MACs |
|---|---|---|---|---|---|"""


def budgets(results: Results) -> Iterator[str]:
    result = results["anytime"]
    yield f"\n## Budgets, {result['requests']:,} requests each\n"
    yield ANYTIME
    for name, row in result["networks"].items():
        overhead, refused = max(row["overhead_p50_ms"].values()), row["below_the_cheapest"]
        says = f"a budget that no path can keep is rejected after {refused['p50_ms']:.3f} ms"
        yield f"**{name}** ({row['runtime']}, overhead {overhead:.2f} ms, {says}):\n"
        yield "| budget, ms | in time | right | paths used | p50, ms | p99, ms |\n|---|---|---|---|---|---|"
        for cell in row["budgets"]:
            used = ", ".join(f"{path} {n / result['requests']:.1%}" for path, n in cell["used"].items())
            shares = f"{cell['in_time']:.2%} | {cell['used_right']:.1%}"
            yield f"| {cell['budget_ms']:.2f} | {shares} | {used} | {cell['p50']:.2f} | {cell['p99']:.2f} |"
        yield ""


def steps(results: Results) -> Iterator[str]:
    result = results["dynamic_steps"]
    yield f"## Gates that decide step by step, {result['images']} images\n"
    yield STEPS.format(limit=result["limit"])
    for row in result["rows"]:
        own = row["dynamic"]
        forms = [("with gates", own["error"], own["macs"], own["ms_an_image"], f"{own['ratio']:.3f}")]
        forms.append(("with gates, all open", None, own["macs_forced"], own["ms_an_image_forced"], ""))
        forms += [(s["name"], s["error"], s["macs"], s["ms_an_image"], "") for s in row["static"]]
        for name, error, macs, ms, ratio in forms:
            said = "" if error is None else f"{error:.1f}"
            yield f"| {row['batch']} | {name} | {said} | {macs / 1e6:.1f} | {ms:.3f} | {ratio} |"
