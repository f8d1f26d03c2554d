"""Upload networks to the Hugging Face Hub, and download them by name."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from polypath.core.arguments import takes
from polypath.core.checks import FLAG, TEXT, Rule, check, optional
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.storage.layout import FILES, Folder
from polypath.storage.saving import save


@takes(net=NETWORK, repo_id=TEXT, private=optional(FLAG), token=optional(TEXT), commit_message=TEXT)
def push_to_hub(
    net: PathNet,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload network",
    **options: Any,
) -> str:
    """Save ``net`` with :func:`save` and these ``options``, upload the folder, and return the repository's address."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        folder = save(net, Path(place) / "model", **options)
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo.repo_id, folder_path=folder, allow_patterns=list(FILES), commit_message=commit_message
        )
    return str(repo)


def fetch(source: Folder, revision: str | None = None) -> Path:
    """Return the folder ``source`` or, if there is none, the cached download of the Hub's network with that name.

    Raises:
        ValueError: there is no such folder, and the Hub has no such network or cannot be reached.
    """
    check("source", source, Rule("a folder, or a Hub name (owner/name)", lambda s: isinstance(s, str | os.PathLike)))
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        raise ValueError(f"{source}: is not a folder; give the folder of a saved network, or its Hub name (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # any error of the network or the Hub
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{source}: is not a folder, and the download from the Hub failed ({reason})") from error
