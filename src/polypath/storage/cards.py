"""Write model cards: the README of a saved network, with metadata for the Hub and a table of its paths."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "name": ("path", str),
    "error": ("error, %", "{:.2f}".format),
    "error_recalibrated": ("error, % (norms recalibrated)", "{:.2f}".format),
    "params": ("parameters", "{:,}".format),
    "macs": ("MACs", "{:,}".format),
    "activation_bytes": ("activations, MiB", lambda n: f"{n / 2**20:.2f}"),
    "depth": ("depth", str),
    "p50_ms": ("p50, ms", "{:.3f}".format),
    "p95_ms": ("p95, ms", "{:.3f}".format),
}


def model_card(
    config: Mapping[str, Any],
    *,
    paper: str = "",
    named_paths: Sequence[str] = (),
    path_table: Sequence[Row] = (),
    parameters: int | None = None,
    licence: str = "apache-2.0",
    dataset: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of ``README.md``: metadata for the Hub, then Markdown.

    Args:
        config: the contents of ``config.json``.
        named_paths: texts of the network's named paths, which are listed if there is no table.
        path_table: rows of results. Their keys are as in :data:`COLUMNS`; other keys become further columns.
        dataset: the dataset that the network was trained on. If it is a Hub name, it also becomes metadata.
        notes: sentences for the card, such as how the results were obtained.
    """
    name = config.get("model") or config["family"]
    front = _front([str(config["family"])], licence, dataset)
    return "\n".join([*front, "", f"# {name}", "", *_facts(config, paper, parameters, dataset), *_usage()]) + "".join(
        f"\n{line}" for line in [*_paths(named_paths, path_table), *_notes(notes), ""]
    )


def bundle_card(
    name: str,
    families: Mapping[str, str],
    path_table: Sequence[Row],
    dataset: str | None = None,
    notes: Sequence[str] = (),
    licence: str = "apache-2.0",
) -> str:
    """Return the text of ``README.md`` for a bundle of several networks, each of which also has its own card.
    ``families`` maps the name of each network to its family."""
    lines = [*_front(list(dict.fromkeys(families.values())), licence, dataset), "", f"# {_plain(name)}", ""]
    lines += ["This bundle classifies images with a path of one of these networks, within a time budget:", ""]
    lines += [f"- [{network}]({network}/README.md): {_plain(family)}" for network, family in families.items()]
    lines += ["", *_paths((), path_table), *_notes(notes), ""]
    return "\n".join(lines)


def _front(families: Sequence[str], licence: str, dataset: str | None) -> list[str]:
    """Return the metadata for the Hub."""
    head: dict[str, Any] = {
        "library_name": "polypath",
        "pipeline_tag": "image-classification",
        "license": licence,
        "tags": ["image-classification", "polypath", "pytorch", *families],
    }
    if dataset and re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        head["datasets"] = [dataset]
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---"]  # JSON values are valid YAML


def _facts(config: Mapping[str, Any], paper: str, parameters: int | None, dataset: str | None) -> list[str]:
    """Return facts about the network, a line for each."""
    classes, normalisation, image = (config.get(key) or {} for key in ("classes", "normalisation", "image"))
    rows = {
        "family": config["family"] + (f" ({paper})" if paper else ""),
        "paths": f"`{config['paths']}`, extracted" if config.get("paths") else None,
        "parameters": f"{parameters:,}" if parameters is not None else None,
        "trained on": dataset,
        "classes": _shortened([str(c) for c in classes]) if classes else None,
        "images": _image(image, config.get("min_size")),
        "normalisation": f"mean {normalisation['mean']}, std {normalisation['std']}" if normalisation else None,
        "batch-norm statistics": _statistics(config.get("statistics")),
        "gates": _gates(config.get("gates")),
        "written by": f"polypath {config['polypath']}, torch {config['torch']}",
    }
    return [f"- **{key}**: {_plain(value)}" for key, value in rows.items() if value]


def _image(image: Mapping[str, Any], min_size: int | None) -> str | None:
    parts = []
    if image.get("size"):
        parts.append("×".join(map(str, image["size"])) + " pixels")
    if image.get("resize"):
        parts.append(f"resized by `{image['resize']}`" + (f" to {image['to']}" if image.get("to") else ""))
    if min_size:
        parts.append(f"at least {min_size} pixels a side")
    return ", ".join(parts) or None


def _statistics(record: Mapping[str, Any] | None) -> str | None:
    return f"recalibrated for these paths on {record['images']} training images" if record else None


def _gates(record: Mapping[str, Any] | None) -> str | None:
    if not record:
        return None
    whom = "that reach them" if record["over"] == "reaching" else "in all"
    return (
        f"not as trained: their biases were shifted so that they open for {record['target']:g} of the images {whom}, "
        f"measured on {record['images']:,} held-out images"
    )


def _usage() -> list[str]:
    return [
        "",
        "```python",
        "import polypath as pp",
        "",
        'net = pp.load("FOLDER_OR_HUB_NAME")  # in evaluation mode; no code is run from this folder',
        "logits = net(images)  # (N, C, H, W), normalised as above",
        "```",
        "",
    ]


def _paths(named: Sequence[str], table: Sequence[Row]) -> list[str]:
    if table:
        known = dict.fromkeys((*COLUMNS, *(key for row in table for key in row)))
        keys = [k for k in known if k != "paths" and any(row.get(k) is not None for row in table)]
        lines = ["| " + " | ".join(COLUMNS[k][0] if k in COLUMNS else _plain(k) for k in keys) + " |"]
        lines.append("|" + "|".join("---" if k == "name" else "---:" for k in keys) + "|")
        lines += ["| " + " | ".join(_cell(k, row.get(k)) for k in keys) + " |" for row in table]
        return ["## Paths", "", *lines, ""]
    if len(named) > 1:
        listed = _shortened([f"`{text}`" for text in named])
        return ["## Paths", "", f"`net(images, paths=...)` runs one of {listed}.", ""]
    return []


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    return _plain(COLUMNS[key][1](value) if key in COLUMNS else value)


def _notes(notes: Sequence[str]) -> list[str]:
    return ["## Notes", "", *(f"- {_plain(note)}" for note in notes), ""] if notes else []


def _shortened(items: Sequence[str], limit: int = 20) -> str:
    return ", ".join(items[:limit]) + (f", … ({len(items)})" if len(items) > limit else "")


def _plain(value: Any) -> str:
    """Return a value as one line that cannot break a table or a list."""
    return " ".join(str(value).split()).replace("|", "\\|")
