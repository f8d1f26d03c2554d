"""Writes a folder of at most 30 MiB with the files that a GPU machine may lack (``make gpu-pack DATA=DIR``).

``wheels/``        packages for the GPU machine's Python, without their dependencies
``cifar10/data/``  the parquet files of CIFAR-10 from DIR
``revision.txt``   the revision of the checkout from which the folder was made

The command needs pip and a package index, but nothing of Polypath.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("datasets", "dill", "docstring_parser", "msgspec", "multiprocess", "pytorchcv", "shtab", "timm", "tyro",
            "typeguard")  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
MOST = 30 * 2**20  # bytes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make gpu-pack", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's parquet files")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-pack")
    parser.add_argument("--python", default="3.12", help="version of the GPU machine's Python (3.12)")
    parser.add_argument(
        "--constraints", type=Path, default=ROOT / "constraints.txt", help="file with the packages' versions"
    )
    args = parser.parse_args(argv)
    half = args.out.with_name(args.out.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        images = _images(args.data)
        versions = _versions(args.constraints)
        if args.out.exists():
            raise ValueError(f"--out {args.out}: this folder exists; remove it first")
        (half / "cifar10/data").mkdir(parents=True)
        for file in images:
            shutil.copy(file, half / "cifar10/data" / file.name)
        _download(versions, half / "wheels", args.python)
        head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        (half / "revision.txt").write_text(subprocess.run(head, capture_output=True, text=True).stdout)
        size = sum(file.stat().st_size for file in half.rglob("*"))
        if size > MOST:
            raise ValueError(f"the folder has {size / 2**20:.1f} MiB: must be at most {MOST / 2**20:g} MiB")
        half.rename(args.out)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"gpu-pack: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(half, ignore_errors=True)
    print(f"wrote {args.out}, {size / 2**20:.1f} MiB")
    return 0


def _images(folder: Path) -> list[Path]:
    """Return the parquet files of both splits, in ``folder`` or its subfolder ``data``."""
    for place in (folder, folder / "data"):
        found = {part: sorted(place.glob(f"{part}-*.parquet")) for part in ("train", "test")}
        if all(found.values()):
            return [file for files in found.values() for file in files]
    raise ValueError(
        f"--data {folder}: must contain train-*.parquet and test-*.parquet, directly or in its folder data"
    )


def _versions(constraints: Path) -> list[str]:
    """Return, as ``name==version``, the packages to pack that the file of versions contains."""
    lines = constraints.read_text().splitlines()
    return [line for line in lines if line.partition("==")[0].replace("-", "_") in PACKAGES]


def _download(versions: list[str], folder: Path, python: str) -> None:
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, "--dest", str(folder), *versions], check=True)


if __name__ == "__main__":
    sys.exit(main())
