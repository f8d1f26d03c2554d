"""The images of an experiment's arms. They are found, checked for the needed splits, and loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from polypath.data.config import DataConfig
from polypath.data.identity import Identity
from polypath.data.names import split_of
from polypath.data.sources import KNOWN, ImageData, identify, load_images, local_folder, open_source
from polypath.training.recipe import Recipe
from polypath.training.recipe import replace as changed
from polypath.training.run_data import located

SCORED = ("test", "validation")


class Images:
    """A store of the arms' datasets. It loads each dataset on first use.

    Args:
        places: another folder to read a source's images from, by ``source``.
    """

    def __init__(self, places: Mapping[str, str] | None = None) -> None:
        self.places = dict(places or {})
        self._loaded: dict[DataConfig, ImageData] = {}
        self._known: dict[DataConfig, Identity] = {}

    def of(self, config: DataConfig) -> ImageData:
        """Return the images of a configuration. Configurations that differ only in augmentation share their images."""
        plain = replace(config, augment=DataConfig().augment)
        if plain not in self._loaded:
            self._loaded[plain] = load_images(self.located(config))
        return self._loaded[plain]

    def identity(self, config: DataConfig) -> Identity:
        """Return the identity of a configuration's images, without decoding any image."""
        plain = replace(config, augment=DataConfig().augment)
        if plain not in self._known:
            self._known[plain] = identify(self.located(plain))
        return self._known[plain]

    def folder(self, config: DataConfig) -> str | None:
        """Return the folder of a configuration's images; None if the source is the name of a dataset."""
        place = local_folder(self.located(config).source)
        return None if place is None else str(place)

    def located(self, config: DataConfig) -> DataConfig:
        """Return the configuration with the source that its images are actually read from."""
        return located(config, self.places.get(config.source))

    @property
    def notes(self) -> list[str]:
        """Return the name of each loaded dataset, with its caveats."""
        told = {f"{data.name}: {data.note}" if data.note else data.name for data in self._loaded.values()}
        return sorted(told)


def with_source(arms: Mapping[str, Recipe], source: str | None) -> dict[str, Recipe]:
    """Return the arms with images from another source: ``FOLDER_OR_NAME`` if all arms read the same dataset, or
    ``cifar10=FOLDER`` for the arms that read ``cifar10``.

    Raises:
        ValueError: the arms read several datasets, and ``source`` does not say which one to replace.
    """
    if source is None:
        return dict(arms)
    sources = sorted({recipe.data.source for recipe in arms.values()})
    name, equals, place = source.partition("=")
    if equals and name in sources:
        return {
            arm: changed(recipe, {"data.source": place}) if recipe.data.source == name else recipe
            for arm, recipe in arms.items()
        }
    if len(sources) > 1:
        raise ValueError(
            f"--data.source {source!r}: this experiment reads several datasets ({', '.join(sources)}); say which one "
            f"to replace, as in {sources[0]}=FOLDER"
        )
    return {arm: changed(recipe, {"data.source": source}) for arm, recipe in arms.items()}


def check_splits(configs: Iterable[DataConfig]) -> None:
    """Check, before any training, that each dataset has the splits that are needed for training and testing.

    A missing test split is not replaced by held-out training images, which are not the paper's test set.

    Raises:
        ValueError: a split is missing; the message lists the existing ones.
    """
    for config in set(configs):
        known = KNOWN.get(config.source, {})
        config = replace(config, **{f: v for f, v in known.items() if f == "source" or getattr(config, f) is None})
        source = open_source(config)
        there = {split_of(split) or split for split in source.splits}
        needed = [("train", config.train_split), ("extra", config.extra_split)]
        for what, split in needed:
            if split is not None and (split_of(split) or split) not in there:
                raise ValueError(_missing(what, split, config, source.splits))
        if config.test_split is None and not there & set(SCORED):
            raise ValueError(_missing("test", "test", config, source.splits))
        if config.test_split is not None and (split_of(config.test_split) or config.test_split) not in there:
            raise ValueError(_missing("test", config.test_split, config, source.splits))


def _missing(what: str, split: str, config: DataConfig, splits: Iterable[str]) -> str:
    return (
        f"data.source {config.source!r}: the dataset has no split {split!r}, which this experiment needs as the {what} "
        f"split; it has {', '.join(splits) or 'no splits'}"
    )
