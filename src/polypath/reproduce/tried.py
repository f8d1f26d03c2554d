"""The attempts to confirm claims that do not hold, one line per claim, for the page of results."""

from __future__ import annotations

from polypath.reproduce.claims import Claim, Verdict
from polypath.reproduce.registry import get_experiment
from polypath.reproduce.result import Result

TRIED: dict[tuple[str, str], str] = {
    (
        "fractalnet/suspects",
        "no-transitions",
    ): "growth inside the columns and 1×1 transitions before all blocks, both with recalibrated batch-norm",
}
"""The attempts, by experiment and claim id."""


def tried(result: Result, verdict: Verdict, claim: Claim | None) -> str:
    """Return the attempts to confirm a claim that does not hold."""
    key = result.experiment, verdict.id
    if key in TRIED:
        return TRIED[key]
    if claim is not None and claim.exact:
        return "nothing, since exact counts do not depend on training"
    if result.scale != "small":
        return f"only the scale *{result.scale}*"
    at = "medium" in get_experiment(result.experiment).scales
    return "only the scale *small*" + (" (*medium*, with all images, is planned)" if at else "")
