"""An experiment that runs in a second, for tests of the machinery."""

from __future__ import annotations

from typing import Any

from polypath.families.fusenet import PlainNet
from polypath.reproduce.claims import better, counted
from polypath.reproduce.experiment import Experiment, Scale
from polypath.reproduce.measure import last_loss, per_arm, training_curves
from polypath.reproduce.measure import whole as answers
from polypath.reproduce.scales import smoke


def tiny(**changes: Any) -> Experiment:
    """Two plain nets on digits, one of which learns nothing."""
    arms = {
        "learns": smoke(PlainNet(depth=5, width=4), **changes),
        "rests": smoke(PlainNet(depth=5, width=4), optim__lr=1e-9, **changes),
    }
    return Experiment(
        name="fractalnet/tiny",
        place="nowhere",
        shows="that learning helps",
        scales={"smoke": lambda: Scale(arms=arms, seeds=2, changes=("it is a test",))},
        measure=per_arm(answers, training_curves),
        counts=lambda scale: {"arms": len(arms)},
        units={"loss": "nats"},
        claims=(
            better("learning-helps", "learns", "rests", "learning helps"),
            counted("two-arms", "two arms", lambda c: c["arms"] - 1),
        ),
    )


__all__ = ["last_loss", "tiny"]
