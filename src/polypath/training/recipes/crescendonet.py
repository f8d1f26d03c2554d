"""Recipes of CrescendoNet (Zhang et al. 2017, §III-A and §III-B; Tables I and II, Fig. 3).

The optimiser is SGD with Nesterov momentum, or Adam. Initial weights are truncated normal, and batches have 128 images.
The linear layers have L2 regularisation, and the convs have no weight decay. Dropout and drop-path are used. Training
takes 700 epochs on CIFAR and 70 on SVHN. Path-wise training takes 1400 epochs on CIFAR and 100 on SVHN.
"""

from __future__ import annotations

from collections.abc import Iterator

from polypath.families.crescendonet import CrescendoNet
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath, PathWise
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import DATA, Entry, derive, model_of
from polypath.training.schedules import ScheduleConfig

DATASETS = ("cifar10", "cifar10+", "cifar100", "cifar100+", "svhn")
TUTORIAL = "as in TensorFlow's CIFAR-10 tutorial, which has the same linear layers (384, 192, std 0.04)"

ASSUMED = {
    "batch_size": "the paper states 128 for each training replica, but not the number of replicas: one",
    "data.normalise": '"dividing the variance of the pixels" does not say which variance: that of each channel',
    "model.dropout": "rate and place of dropout are not stated: 0.2 on each unit's output, FractalNet's mean rate",
    "model.final_map": "pools after the last block are not stated: maps of the size that gives the printed parameters",
    "objective.rate": "the rate is not stated: 0.3, as in the paper's example",
    "model.bias": "biases are not stated, and the printed sizes fit networks with and without them: none",
    "optim.decay": '"the fully connected layers" may include the softmax layer: decay is on all three',
    "optim.weight_decay": f"the coefficient of L2 on linear layers is not stated: 0.004, {TUTORIAL}",
}

NESTEROV = OptimConfig(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.004, decay="linear")
ADAM = OptimConfig(kind="adam", lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.004, decay="linear")

_BASE = Recipe(
    name="crescendonet",
    model=CrescendoNet(dropout=0.2),
    data=DATA["cifar10"],
    optim=NESTEROV,
    schedule=ScheduleConfig(kind="step", at_epochs=(512,)),
    objective=DropPath(rate=0.3),
    epochs=700,
    batch_size=128,
    checkpoint_every=5,
    assumed=ASSUMED,
)
_SVHN = {
    "optim.lr": 0.05,
    "schedule": ScheduleConfig(kind="step", at_epochs=(42, 63)),
    "epochs": 70,
    "checkpoint_every": 1,
}
_PATH_WISE = {
    "schedule": "no schedule is stated for path-wise training: Adam's constant rate, as in whole-network training",
    "objective.phase_epochs": "the length of a phase, in which one branch learns, is not stated: one epoch",
    "objective.backward": 'frozen layers "only provide learned features": the gradient flows through them (exact)',
    "objective.rate": "the rate of drop-path in path-wise training is not stated: 0.3, as in the paper's example",
}


def entries() -> Iterator[Entry]:
    for dataset in DATASETS:
        yield from _table_1(dataset)
    yield Entry(
        derive(
            _with(_adam("cifar10"), "crescendonet_512", "cifar10"),
            "crescendonet_512-cifar10-adam-figure3",
            {"epochs": 450, "trace_test": True},
            {"model": "the widths of this run are not stated: as in Table II", "data.augment": "not stated: none"},
        ),
        "Fig. 3: errors of subnets along 450 epochs",
    )


def _table_1(dataset: str) -> Iterator[Entry]:
    nesterov, adam = _nesterov(dataset), _adam(dataset)
    for model, widths in (
        ("crescendonet_128", "(128, 128, 128)"),
        ("crescendonet_512w", "(128, 256, 512)-W"),
        ("crescendonet_512", "(128, 256, 512)"),
    ):
        row = f"Table I, Nesterov, {widths}"
        yield Entry(_with(nesterov, model, dataset, f"{model}-{dataset}"), row)
    for model, widths in (("crescendonet_128", "(128, 128, 128)"), ("crescendonet_512", "(128, 256, 512)")):
        table = "Tables I and II" if model == "crescendonet_512" else "Table I"
        yield Entry(_with(adam, model, dataset, f"{model}-{dataset}-adam"), f"{table}, Adam, {widths}")
    model = "crescendonet_512"
    for base, suffix in ((nesterov, ""), (adam, "-adam")):
        name = f"{model}-{dataset}{suffix}-nodroppath"
        recipe = derive(_with(base, model, dataset), name, {"objective": Whole()})
        yield Entry(recipe, f"Table I, {'Adam' if suffix else 'Nesterov'}, without drop-path")
    path_wise = derive(
        _with(adam, model, dataset),
        f"{model}-{dataset}-adam-pathwise",
        {"objective": PathWise(phase_epochs=1, rate=0.3), "epochs": 100 if dataset == "svhn" else 1400},
        _PATH_WISE,
    )
    yield Entry(path_wise, "Table I, path-wise training")


def _with(base: Recipe, model: str, dataset: str, name: str | None = None) -> Recipe:
    spec = model_of(model, dataset, dropout=0.2)
    return derive(base, name or base.name, {"model": spec})


def _nesterov(dataset: str) -> Recipe:
    changes = {"data": DATA[dataset]} | (_SVHN if dataset == "svhn" else {})
    return derive(_BASE, f"crescendonet-{dataset}", changes)


def _adam(dataset: str) -> Recipe:
    return derive(_nesterov(dataset), f"crescendonet-{dataset}-adam", {"optim": ADAM, "schedule": ScheduleConfig()})
