"""What a user would pick instead of a path, trained on the same images for the same PFLOP and run in the same runtime.

    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --plan
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --only resnets,exits --beside BUNDLE

============  ===================================================================================
methods       the five, and the networks that each trains
networks      a network by an ordinary recipe, or by airbench's
plan          how long each trains, so that methods cost the same
training      tuning on held-out images, then training, from where it was interrupted
scoring       answers on the test images, which are looked at once
timing        one image on one thread, all paths by turns
front         hypervolumes with intervals over seeds and images
switchable    slimmable widths, smaller images        (a family)
msdnet        MSDNet                                  (a family)
airnet        airbench's network and its views        (a family); airbench: its recipe
============  ===================================================================================

The folder of the runs holds ``METHOD-NETWORK/seed=N`` (ordinary run folders but for airbench's), trials of learning
rates beside them, ``answers/``, ``bundles/``, ``runtime.json``, ``result.json`` and the figure. The result goes to
``benchmarks/results/KIND/outside.json`` as well, with which test images every path answers rightly, a bit each.
"""

from benchmarks.outside.command import run

__all__ = ["run"]
