"""Alternatives to paths, trained on the same images with the same PFLOP and run in the same runtime.

    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --plan
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --only resnets,exits --beside BUNDLE

============  ===================================================================================
methods       the methods, and the networks that each trains
networks      a network trained by an ordinary recipe, or by airbench's
plan          the length of each training, so that methods cost the same
training      tuning on held-out images, then training; resumes if interrupted
scoring       answers on the test images, which are used once
timing        one image on one thread, all paths alternately
front         hypervolumes with intervals over seeds and images
switchable    slimmable widths, smaller images        (a family)
msdnet        MSDNet                                  (a family)
airnet        airbench's network and its views        (a family); airbench: its recipe
============  ===================================================================================

The folder of the runs contains ``METHOD-NETWORK/seed=N`` (ordinary run folders, except airbench's), trials of learning
rates beside them, ``answers/``, ``bundles/``, ``runtime.json``, ``result.json`` and the figure. The result is also
written to ``benchmarks/results/KIND/outside.json``, with one bit per path and test image: whether the answer is
correct.
"""

from benchmarks.outside.command import run

__all__ = ["run"]
