"""``my-images``: a recipe for your own images. The recipe's open fields are settled from facts about these images
(:mod:`polypath.training.settle`)."""

from __future__ import annotations

from collections.abc import Iterator

from polypath.data.config import DataConfig
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import Entry
from polypath.training.recipes.fast import BUNDLE
from polypath.training.recipes.small import ONE_CYCLE, SGD
from polypath.training.settle import DECISIONS

MY_IMAGES = Recipe(
    name="my-images",
    model=BUNDLE.model,
    data=DataConfig(source="cifar10", size=32, validation=1000),
    optim=SGD,
    schedule=ONE_CYCLE,
    objective=DropPath(mode="mixed", rate=0.15),
    epochs=20,
    batch_size=32,
    precision="auto",
    channels_last=True,
    open_fields=tuple(DECISIONS),
)


def entries() -> Iterator[Entry]:
    yield Entry(
        MY_IMAGES, "your own pictures: give their folder with --data.source DIR; other fields are settled from them"
    )
