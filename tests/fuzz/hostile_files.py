"""Seeded hostile files at each door: manifests, a config, a recipe, stored times, statistics, weights, a graph.

    findings = run(seed=0, cases=500, place=folder)

A case takes good files, changes one of them at random, makes digests fit again (or fuzzing would stop at them) and
opens it. Right are an answer and a ``ValueError`` of one line, within a second or two; all else is a finding.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import polypath as pp
from deploy.several import two_networks
from polypath.deploy import latency_profile
from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import SHIPPED, Bundle
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.stopping import plan_stopping
from polypath.training.recipe import recipe_to_json
from polypath.training.run import RunFolder

LONGEST_S = 5.0
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 18, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**400, -(10**18)),
    *(0.5, -0.0, 1e-300, 1e308, float("inf"), float("-inf"), float("nan"), "1e400"),
    *("", "x", "../x", "/etc/passwd", "\ud800", "\x1b]0;x\x07", "\u202e", "a" * 10_000, "whole", "model.safetensors"),
    *([], {}, [[]], [1] * 1000, ["x"], {"x": 1}, [10**9] * 3, [1e400], [True, False]),
)
"""Values that stand in for others."""


@dataclass(frozen=True)
class Finding:
    """What went wrong: which door, at which case, and how."""

    door: str
    case: int
    what: str


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one to three of its parts changed, taken out, doubled or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD))
        table, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0 and isinstance(table, dict):
            del table[key]
        elif kind == 1 and isinstance(table, dict):
            table[rng.choice(["x", "\ud800", "", key + "2"])] = copy.deepcopy(rng.choice(ODD))
        elif kind == 2:
            other, name = rng.choice(places)
            table[key] = copy.deepcopy(other[name])
        elif kind == 3 and isinstance(table[key], int | float):
            table[key] = table[key] * rng.choice([-1, 0, 2, 1000, 10**9]) + rng.choice([0, 1, -1])
        elif kind == 4 and isinstance(table[key], list):
            table[key] = table[key] * rng.choice([0, 2, 50])
        else:
            table[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some flipped, cut away, doubled or made large."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(max(1, len(found))), rng.randrange(5)
        if kind == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del found[at : at + rng.choice([1, 8, 1000])]
        elif kind == 2:
            found[at:at] = found[at : at + rng.choice([1, 8, 100])]
        elif kind == 3:
            found[at : at + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, (2**40).to_bytes(8, "little")])
        else:
            found[at : at + 4] = rng.randbytes(4)
    return bytes(found)


def text_of(value: Any, rng: random.Random) -> bytes:
    """A JSON text, now and then a broken one, too deep or with a key twice."""
    text = json.dumps(value).replace("Infinity", "1e400")
    kind = rng.randrange(12)
    if kind == 0:
        return damaged(text.encode(), rng)
    if kind == 1:
        return b'{"a":' * 3000 + text.encode() + b"}" * 3000
    if kind == 2 and text.startswith("{"):
        return ('{"format": "x", ' + text[1:]).encode()
    return text.encode()


def header_changed(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, or with numbers that are none."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    kind = rng.randrange(4)
    if kind == 0:
        return damaged(data[: end + 1000], rng) + data[end + 1000 :]
    if kind == 1:
        return data[:end] + np.full((len(data) - end) // 4, rng.choice([np.nan, np.inf, 1e38]), "<f4").tobytes()
    text = text_of(mutated(header, rng), rng)
    return len(text).to_bytes(8, "little") + text + data[end:]


def graph_changed(data: bytes, rng: random.Random) -> bytes:
    """An ONNX file, its protobuf damaged or some of its fields changed."""
    import onnx

    if rng.randrange(3) == 0:
        return damaged(data, rng)
    model = onnx.ModelProto.FromString(data)
    graph: Any = model.graph
    for _ in range(rng.randint(1, 3)):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        kind = rng.randrange(9)
        if kind == 0:
            node.op_type = rng.choice(
                ["Loop", "If", "Relu", "MatMul", "Reshape", "Expand", "Tile", "Concat", "NonZero"]
            )
        elif kind == 1:
            node.domain = rng.choice(["", "com.microsoft", "x"])
        elif kind == 2 and tensor.external_data:
            rng.choice(tensor.external_data).value = rng.choice(
                ["", "0", "-1", "../x", "/etc/passwd", "9" * 30, "4348800"]
            )
        elif kind == 3:
            tensor.dims.append(rng.choice([0, 1, 7, -1, 2**40]))
        elif kind == 4:
            tensor.data_type = rng.randrange(25)
        elif kind == 5 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(["", "images", "logits", "x"])
        elif kind == 6 and node.attribute:
            one = rng.choice(node.attribute)
            one.i, one.ints[:] = rng.choice([0, -1, 2**40]), [rng.choice([0, -1, 7, 2**31]) for _ in one.ints]
        elif kind == 7:
            value = rng.choice([*graph.input, *graph.output])
            value.type.tensor_type.shape.dim.add(dim_value=rng.choice([0, 1, 10**6]))
        else:
            node.output[0] = rng.choice(["logits", "x", node.output[0]])
    return model.SerializeToString()


class Doors:
    """The doors, with good files in ``place`` from which each case makes its own."""

    def __init__(self, place: Path) -> None:
        self.place, self.good = place, place / "good"
        self.good.mkdir()
        net = pp.create_model("crescendonet_32", seed=0, widths=(4, 6), hidden=(8,), scale=2)
        pp.save(
            net, self.good / "net", classes=[f"c{i}" for i in range(10)], mean=(0.5,) * 3, std=(0.2,) * 3, image_size=16
        )
        self.two = two_networks(self.good / "two", link=True)
        self.several = json.loads((self.two / manifests.NAME).read_text())
        self.recipe = recipe_to_json(pp.get_recipe("crescendonet-digits"))
        self.all: dict[str, Callable[[random.Random], None]] = {
            "manifest": self.manifest,
            "networks": self.networks,
            "config": self.config,
            "recipe": self.recipe_,
            "profile": self.profile,
            "weights": self.weights,
            "statistics": self.statistics,
            "graph": self.graph,
        }

    def _bundle(self, **changed: bytes) -> Path:
        """The shipped bundle with other bytes in some files, its manifest's digests those of what it holds."""
        folder = self.place / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in SHIPPED.iterdir():
            if file.name in changed:
                (folder / file.name).write_bytes(changed[file.name])
            else:
                os.symlink(file, folder / file.name)
        if manifests.NAME not in changed:
            values = json.loads((SHIPPED / manifests.NAME).read_text())
            for name, data in changed.items():
                values["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            (folder / manifests.NAME).unlink()
            (folder / manifests.NAME).write_text(json.dumps(values | {"digest": manifests.digest(values)}))
        return folder

    def manifest(self, rng: random.Random) -> None:
        values = mutated(json.loads((SHIPPED / manifests.NAME).read_text()), rng)
        if isinstance(values, dict):
            values["digest"] = manifests.digest(values)
        bundle = Bundle.open(self._bundle(**{manifests.NAME: text_of(values, rng)}))
        _ = repr(bundle), bundle._repr_html_(), bundle.ladder, bundle.formats
        if "onnx" in bundle.formats:
            for path in bundle.paths[:1]:
                bundle.graphs.file(path)

    def networks(self, rng: random.Random) -> None:
        values = mutated(self.several, rng)
        if isinstance(values, dict):
            values["digest"] = manifests.digest(values)
        (self.two / manifests.NAME).write_bytes(text_of(values, rng))
        bundle = Bundle.open(self.two)
        _ = repr(bundle), bundle._repr_html_(), bundle.ladder, bundle.formats, bundle.networks
        assert all(one.folder.parent in (self.two, self.good) for one in bundle.networks.values())
        if "onnx" in bundle.formats:
            for path in bundle.paths[1:2]:
                bundle.graphs.file(path)

    def config(self, rng: random.Random) -> None:
        folder = self.place / "net"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good / "net", folder)
        values = json.loads((folder / "config.json").read_text())
        changed = (
            mutated(values, rng) if rng.randrange(2) else {**values, "arguments": mutated(values["arguments"], rng)}
        )
        (folder / "config.json").write_bytes(text_of(changed, rng))
        net = pp.load(folder)
        _ = net.class_names, net.pretrained_cfg
        Bundle.open(folder)

    def recipe_(self, rng: random.Random) -> None:
        folder = self.place / "run"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.json").write_bytes(text_of(mutated(self.recipe, rng), rng))
        RunFolder.open(folder)

    def profile(self, rng: random.Random) -> None:
        store = latency_profile.Store({"bundle": "x"})
        assert store.file is not None
        store.file.parent.mkdir(parents=True, exist_ok=True)
        good = {"facts": store.facts, "times": {"1": {"whole": [1.0, 2.0]}, "8": {"whole": [3.0]}}}
        store.file.write_bytes(text_of(mutated(good, rng), rng))
        for times in store.load(["whole"]).values():
            assert all(0 < one < float("inf") for one in times["whole"])

    def weights(self, rng: random.Random) -> None:
        folder = self.place / "net"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good / "net", folder)
        file = folder / "model.safetensors"
        file.write_bytes(header_changed(file.read_bytes(), rng))
        pp.load(folder)

    def statistics(self, rng: random.Random) -> None:
        name = rng.choice(["statistics.safetensors", "held_out.safetensors"])
        bundle = Bundle.open(self._bundle(**{name: header_changed((SHIPPED / name).read_bytes(), rng)}))
        if name.startswith("held"):
            plan_stopping(bundle, 0.1, 0.9)
        else:
            bundle.extracted("column=1")

    def graph(self, rng: random.Random) -> None:
        name = "column=1.onnx"
        bundle = Bundle.open(self._bundle(**{name: graph_changed((SHIPPED / name).read_bytes(), rng)}))
        logits = open_runtime("onnxruntime", bundle, 1).prepare("column=1", 1)(np.zeros((1, 3, 32, 32), np.float32))
        assert logits.shape == (1, 10)


def run(
    seed: int, cases: int, place: Path, doors: tuple[str, ...] = (), answers: Counter[str] | None = None
) -> list[Finding]:
    """Run so many cases, the doors by turns, in an empty folder; what was wrong. ``answers`` counts what was taken."""
    all_doors, found = Doors(place), []
    answers = Counter() if answers is None else answers
    names = doors or tuple(all_doors.all)
    for case in range(cases):
        name = names[case % len(names)]
        begun = time.process_time()
        try:
            all_doors.all[name](random.Random(f"{seed} {case}"))
            answers[name] += 1
        except ValueError as error:
            if isinstance(error, UnicodeError) or not str(error) or len(str(error)) > 100_000:
                found.append(Finding(name, case, f"{type(error).__name__}: {error}"[:300]))
        except Exception as error:
            found.append(Finding(name, case, f"{type(error).__name__}: {error}"[:300]))
        if (took := time.process_time() - begun) > LONGEST_S:
            found.append(Finding(name, case, f"took {took:.1f} s"))
    return found
