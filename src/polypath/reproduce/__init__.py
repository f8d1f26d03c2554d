"""The papers' tables and figures as runnable experiments, compared with the published numbers.

    result = reproduce("crescendonet/table2", "small", out="reproduced/table2", source="…/cifar10")
    result.verdicts, result.frame()

Define an experiment as follows (:mod:`polypath.reproduce.papers.crescendonet` contains complete ones). Its module is
listed in :data:`polypath.reproduce.registry.PAPERS` and has a tuple ``EXPERIMENTS``::

    Experiment(                                   # experiment.py
        name="dfn/table4", place="Table 4", shows="...",
        scales=at_scales(smoke_arms, small_arms, paper_arms, small_says=("...",)),     # scales.py
        measure=per_arm(whole),                   # measure.py; or any function Mapping[arm, Trained] -> Measured
        counts=lambda scale: {"paths of DFN-MR": 4.0},          # exact numbers that need no training
        published={"dfn_mr": Cell("table4", "C10_dfn_mr", depth_dfn=56)},              # published.json
        claims=(                                                                       # claims.py
            better("resnet-beats-plain", "resnet", "plain", "..."),
            counted("a-above-b", "...", lambda c: c["a"] - c["b"]),
        ),
        figure=bars(), answer=lambda result: "...", units={"loss": "nats"},
    )

* ``at_scales`` takes functions that return arms (recipes by name), such as
  ``{"plain": small(PlainNet(...)), "resnet": small(ResNet(...))}``. ``small(model, objective, epochs=8,
  data__train_images=4000)`` returns a recipe, and ``smoke(...)`` returns one that trains for a second.
  ``medium(paper("resnet26-cifar10"), 6, model__width=8)`` returns a published recipe with another schedule, here of 6
  epochs, on all of CIFAR-10.
* ``measure`` is called once per seed with *all* trained arms. Each arm is a
  :class:`~polypath.reproduce.trained.Trained` with ``net``, ``recipe``, ``labels``, ``logits(paths)``,
  ``correct(paths, recalibrated=N)``, ``marked(probabilities)``, ``metrics()``, ``epochs()``, ``cost(paths)`` and
  ``failed``. ``measure`` returns a ``Measured``. It contains ``correct`` (a bool per image; tables show the error),
  ``values`` (scalars), ``curves`` and ``histograms``, each by key. ``per_arm(whole)`` uses the arm's name as key, and
  ``ARM/WHAT`` for further results of an arm. To measure an ensemble of several arms, ``average`` their ``logits(...)``
  (:mod:`polypath.reproduce.members`), then call ``marked``.
* A claim's id stays the same when its text changes; verdicts are found by id (``result.verdict("a-above-b")``). A
  claim's statistic takes a mapping from key to mean error (percent) or mean scalar. If a scale does not measure a key
  of the statistic, the verdict is *not measured*.
* A run whose loss is not finite predicts the first class for every image (``failed`` gives the reason).
* All experiments share one store of runs (:mod:`polypath.reproduce.runs`). :mod:`polypath.reproduce.plan` computes the
  cost of a scale. If the scale ``medium`` of an experiment changes, freeze its claims again
  (:mod:`polypath.reproduce.frozen`).
* Tests: ``tests/reproduce/test_smoke.py`` runs every registered experiment at ``smoke``.
"""
