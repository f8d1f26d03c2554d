"""Load a saved network: the family builds the network without weights, then the tensors of the file are inserted."""

from __future__ import annotations

from pathlib import Path

import torch

from polypath.core.arguments import takes
from polypath.core.checks import TEXT, instance, optional
from polypath.core.network import PathNet
from polypath.storage.config import build_net, read_config, restore
from polypath.storage.hub import fetch
from polypath.storage.layout import CONFIG, WEIGHTS, Folder
from polypath.storage.shipped import PRETRAINED, SHIPPED
from polypath.storage.weights import held_by, read_tensors


def load_reported(folder: Folder, *, device: str | torch.device = "cpu") -> PathNet:
    """Load a network from its folder or, if the folder is a finished run, the network whose errors the run reports.
    The name ``pretrained`` stands for the network that comes with the package.

    Raises:
        ValueError: as for :func:`load`.
    """
    return load(reported_folder(folder), device=device)


def reported_folder(folder: Folder) -> Path:
    """Return the folder in which :func:`load_reported` finds the saved network."""
    place = SHIPPED if folder == PRETRAINED else Path(folder)
    return place / "model" if (place / "recipe.json").is_file() else place


@takes(revision=optional(TEXT), device=instance(str, torch.device, legal="a device, as text or torch.device"))
def load(source: Folder, *, revision: str | None = None, device: str | torch.device = "cpu") -> PathNet:
    """Load a network from a folder, or by its Hub name (``owner/name``, cached). Return it in evaluation mode.

    No code from the folder is run, and no pickle is read.

    Raises:
        ValueError: the folder or Hub name does not exist, a file is missing, damaged or of another kind, a family or
            argument is unknown to this version, or the weights do not fit the network.
    """
    folder = fetch(source, revision)
    config, file = read_config(folder), folder / WEIGHTS
    net = build_net(config, str(folder / CONFIG), held=held_by(file))
    tensors = read_tensors(file, net)
    net.load_state_dict(tensors, assign=True)
    restore(net, config, str(folder / CONFIG))
    return net.to(device).eval()
