"""Alternatives to paths, trained on the same images with the same PFLOP and run in the same runtime.

    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --plan
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3
    python -m benchmarks outside --data DIR --pflop 0.02 --seeds 3 --only resnets,exits --beside BUNDLE

============  ===================================================================================
methods       the methods, and the networks that each method trains
networks      a network trained by an ordinary recipe, or by airbench's recipe
plan          the length of each training, so that all methods cost the same
training      tuning on held-out images, then training; resumes if interrupted
scoring       predictions on the test images, which are used only once
timing        times of one image on one thread, with all paths alternately
front         hypervolumes with intervals over seeds and images
switchable    slimmable widths, smaller images        (a family)
msdnet        MSDNet                                  (a family)
airnet        airbench's network and its views        (a family)
airbench      airbench's recipe
============  ===================================================================================

The folder of the runs contains ``METHOD-NETWORK/seed=N`` (ordinary run folders, except airbench's), trials of learning
rates, ``answers/``, ``bundles/``, ``runtime.json``, ``result.json`` and the figure. The result is also written to
``benchmarks/results/KIND/outside.json``. It has one bit for each path and test image: whether the prediction is
correct.
"""

from benchmarks.outside.command import run

__all__ = ["run"]
