"""Conventional ensembles of component networks (Zhao et al. 2016, §3.1, §4): average the softmax of separate paths.

With *shared* weights, the members share convs, linear layers and the scale and shift of batch-norms, but each member
has separate running statistics. With *separate* weights, each member is a separate network. No information passes
between members.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.arguments import SEVERAL_PATHS, takes
from polypath.core.batchnorm import BatchNormStatistics, bake, buffers, norms
from polypath.core.checks import WHOLE_NUMBER, check, json_value, one_of, optional
from polypath.core.extract import extract
from polypath.core.network import PathNet, set_module
from polypath.core.network_rules import NETWORK, STATISTICS
from polypath.core.paths import Paths
from polypath.core.precision import at_least_float32
from polypath.core.probabilities import log_average_probabilities
from polypath.families.base import FAMILIES
from polypath.storage.config import build_net, restore
from polypath.storage.decode import decode
from polypath.storage.files import parse_json, write_file
from polypath.storage.weights import held_by, opened

WEIGHTS = ("shared", "separate")


@dataclass(frozen=True)
class _Saved:
    """A saved ensemble's config."""

    weights: str
    paths: dict[str, str]
    net: dict[str, Any]


class Ensemble(nn.Module):
    """An ensemble of paths of one network: the paths run separately, and their softmax outputs are averaged.

    For images ``(N, C, H, W)`` it returns *log-probabilities* ``(N, num_classes)``. Their arg-max is the prediction,
    and their ``exp`` gives the averaged probabilities. Cross-entropy accepts log-probabilities like logits.

    Args:
        net: the parent. With shared weights, the parent becomes a part of the ensemble and is not copied, but the
            parent's running statistics do not change.
        paths: the members' paths: a list, or a mapping from the members' names to paths. By default a member's name
            comes from the path's text: ``RLL`` for ``route=RLL``, ``branches_1_3`` for ``branches=1,3``.
        weights: ``shared`` (state-dict keys ``net.*``, and ``members.RLL.*`` for each member's running statistics) or
            ``separate`` (``members.RLL.*`` are extracted networks).
        stats: recalibrated statistics with which the members start, instead of the parent's statistics.
        seed: draw new weights for each member (member i uses seed + i); only with separate weights. By default, all
            members start with the parent's weights.

    Raises:
        ValueError: no path, a duplicate name, a duplicate path with shared weights, an illegal path.
    """

    @takes(net=NETWORK, paths=SEVERAL_PATHS, stats=STATISTICS, seed=optional(WHOLE_NUMBER))
    def __init__(
        self,
        net: PathNet,
        paths: Iterable[Paths | str] | Mapping[str, Paths | str],
        weights: str = "shared",
        *,
        stats: BatchNormStatistics | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check("weights", weights, one_of(*WEIGHTS))
        if seed is not None and (weights == "shared" or stats is not None):
            raise ValueError(
                f"seed = {seed}: must be omitted with shared weights or with stats, because a seed draws new weights"
            )
        self.weights, self.config = weights, copy.deepcopy(net.config)
        self.paths, self._known = _named(net, paths)
        if weights == "shared" and len(set(self.paths.values())) < len(self.paths):
            raise ValueError("two members are the same path, which would count twice with shared weights")
        if weights == "shared":
            self.net = net
        for i, (name, path) in enumerate(self.paths.items()):
            parent = net
            if seed is not None:
                parent = build_net(net.config, "this network's config", seed=seed + i).to(next(net.parameters()))
            child = extract(parent, path, stats=stats)
            set_module(self, f"members.{name}", child if weights == "separate" else _bank(child))
        self.train(net.training)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in order."""
        return tuple(self.paths)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The image preparation for the members, in timm's format; see :attr:`PathNet.pretrained_cfg`."""
        return next(module for module in self.modules() if isinstance(module, PathNet)).pretrained_cfg

    def logits(self, name: str, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the logits ``(N, num_classes)`` of one member. In training, this updates the member's statistics.

        Raises:
            ValueError: a name that no member has.
        """
        name = self._name(name)
        member = self.get_submodule(f"members.{name}")
        if self.weights == "separate":
            return member(x, generator=generator)
        options = {"paths": self.paths[name], "generator": generator}
        # for this call the member's buffers replace the parent's, and batch-norm updates them
        return cast(Tensor, torch.func.functional_call(self.net, dict(member.named_buffers()), (x,), options))

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(
            self, x: Tensor, without: str | Iterable[str] = (), *, generator: torch.Generator | None = None
        ) -> Tensor: ...

    def forward(
        self, x: Tensor, without: str | Iterable[str] = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Compute the log of the members' mean softmax ``(N, num_classes)``, leaving out the members in ``without``.

        Raises:
            ValueError: an unknown name in ``without``, or no member left.
        """
        logits = [self.logits(name, x, generator=generator) for name in self.left(without)]
        return log_average_probabilities(torch.stack(logits))

    def loss(
        self,
        x: Tensor,
        y: Tensor,
        without: str | Iterable[str] = (),
        *,
        label_smoothing: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the training loss: the sum of the members' cross-entropies on images ``x`` and labels ``y`` ``(N,)``.

        Members in ``without`` are left out.
        """
        losses = [
            F.cross_entropy(
                at_least_float32(self.logits(n, x, generator=generator)), y, label_smoothing=label_smoothing
            )
            for n in self.left(without)
        ]
        return torch.stack(losses).sum()

    def left(self, without: str | Iterable[str] = ()) -> list[str]:
        """Return the names of the members that are not in ``without``.

        Raises:
            ValueError: as in :meth:`forward`.
        """
        gone = {self._name(name) for name in ([without] if isinstance(without, str) else without)}
        kept = [name for name in self.paths if name not in gone]
        if not kept:
            raise ValueError(f"without = {', '.join(sorted(gone))}: no member is left")
        return kept

    def take_statistics(self, stats: BatchNormStatistics) -> None:
        """Give each member the recalibrated statistics of its path.

        Raises:
            ValueError: statistics that lack a member's path, or that belong to another network.
        """
        for name, path in self.paths.items():
            member = self.get_submodule(f"members.{name}")
            if isinstance(member, PathNet):
                bake(member, stats[path])
                continue
            for norm, (mean, var) in stats[path].items():
                member.get_buffer(f"{norm}.running_mean").copy_(mean)
                member.get_buffer(f"{norm}.running_var").copy_(var)

    def member(self, name: str) -> PathNet:
        """Copy one member, with its running statistics, to a standalone network."""
        name = self._name(name)
        if self.weights == "separate":
            return copy.deepcopy(cast(PathNet, self.get_submodule(f"members.{name}")))
        child = extract(self.net, self.paths[name])
        child.load_state_dict(dict(self.get_submodule(f"members.{name}").named_buffers()), strict=False)
        return child

    def _name(self, name: str) -> str:
        if name not in self._known:
            raise ValueError(f"member = {name!r}: must be one of the members {', '.join(self.names)}")
        return self._known[name]

    # --- saving ------------------------------------------------------------------------------------------

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the ensemble as one safetensors file, atomically.

        Raises:
            ValueError: the network was not built by a family, so it could not be rebuilt.
        """
        from safetensors.torch import save

        if self.config.get("family") not in FAMILIES:
            raise ValueError("the ensemble cannot be saved, because its network's config contains no family")
        config = {"weights": self.weights, "paths": {n: str(p) for n, p in self.paths.items()}, "net": self.config}
        tensors = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
        data = save(
            tensors, {"config": json.dumps(json_value("this ensemble's config", config))}
        )  # a single metadata entry, because the order of several entries varies
        write_file(file, data)

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Ensemble:
        """Load an ensemble that :meth:`save` wrote. The ensemble is returned in evaluation mode.

        Raises:
            ValueError: a damaged file, or a file that is not an ensemble.
        """
        try:
            with opened(Path(file)) as stream:
                config = decode(parse_json((stream.metadata() or {})["config"], "config"), _Saved, "config")
                tensors = {key: stream.get_tensor(key).clone() for key in stream.keys()}  # noqa: SIM118 (no mapping)
            if len(config.paths) > len(tensors):
                raise ValueError(f"it has {len(config.paths):,} members, but only {len(tensors):,} tensors")
            net = build_net(config.net, os.fspath(file), held=held_by(Path(file)))
            restore(net, config.net, os.fspath(file))
            ensemble = cls(net, config.paths, config.weights)
            ensemble.load_state_dict(tensors, assign=True)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{os.fspath(file)} is not a saved ensemble, or is damaged ({error})") from error
        return ensemble.eval()


def _named(
    net: PathNet, paths: Iterable[Paths | str] | Mapping[str, Paths | str]
) -> tuple[dict[str, Paths], dict[str, str]]:
    """Return ``{name: path}`` of the members, and ``{text: name}`` for all texts that a caller may use for a member."""
    texts = {path: text for text, path in net.named_paths().items()}
    if isinstance(paths, Paths | str):
        raise ValueError(f"paths = {str(paths)!r}: must be a list of paths")
    given: list[tuple[str | None, Paths | str]] = []
    if isinstance(paths, Mapping):
        given += [(str(name), path) for name, path in paths.items()]
    else:
        given += [(None, path) for path in paths]
    members: dict[str, Paths] = {}
    known: dict[str, str] = {}
    for wanted, path in given:
        chosen = net.paths(path)
        text = path if isinstance(path, str) else texts.get(chosen, str(chosen))
        name = wanted if wanted is not None else _member_name(text)
        if not re.fullmatch(r"\w+", name) or hasattr(nn.Module, name):
            raise ValueError(
                f"member name = {name!r}: must consist of letters, digits and '_' and be no attribute of nn.Module"
            )
        if name in members:
            raise ValueError(f"member {name!r} appears twice; give a mapping in which each member has a different name")
        members[name] = chosen
        for alias in (str(chosen), text):
            known.setdefault(alias, name)
    if not members:
        raise ValueError("an ensemble needs at least one path")
    return members, known | {name: name for name in members}


def _member_name(text: str) -> str:
    """Return the text's value if this is a name (``RLL`` for ``route=RLL``), else the whole text (``branches_1_3``)."""
    value = text.partition("=")[2]
    return value if re.fullmatch(r"[A-Za-z]\w*", value) else re.sub(r"\W+", "_", text)


def _bank(child: PathNet) -> nn.Module:
    """Make a module with copies of the running statistics of a path's norms, under the norms' names in the network."""
    bank = nn.Module()
    for name, norm in norms(child).items():
        holder = nn.Module()
        mean, var = buffers(norm)
        assert norm.num_batches_tracked is not None
        for what, tensor in (("mean", mean), ("var", var)):
            holder.register_buffer(f"running_{what}", tensor.clone())
        holder.register_buffer("num_batches_tracked", norm.num_batches_tracked.clone())
        set_module(bank, name, holder)
    return bank
