"""Finds the processor's name, and the number of cores that this process may use."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

Read = Callable[[str], str | None]
"""A function that returns the text of a file, or None if it cannot be read."""


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use: the cores that it is bound to, limited by its CPU quota,
    and at least 1.

    A quota of 1.5 cores counts as 1, since two threads would use up the quota early and then wait for the next period.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota(_text)
    return max(1, min(bound or 1, int(quota) if quota is not None else bound or 1))


def cpu_quota(read: Read) -> float | None:
    """Return the number of cores allowed by the CPU quotas of this process's control groups, or None without a quota.

    Control groups of both versions are read, and also the parents of the process's groups. The smallest quota counts.
    A file that is missing or cannot be parsed counts as no quota.

    Args:
        read: function that returns the text of ``/proc/self/cgroup``, ``/proc/self/mountinfo`` and the groups' files.
    """
    found = []
    for group in _groups(read("/proc/self/cgroup") or "", read("/proc/self/mountinfo") or ""):
        v1 = f"{read(f'{group}/cpu.cfs_quota_us') or ''} {read(f'{group}/cpu.cfs_period_us') or ''}"
        for text in (read(f"{group}/cpu.max") or "", v1):  # "max 100000" and "-1 100000" mean that there is no quota
            with contextlib.suppress(ValueError):
                quota, period = map(int, text.split())
                if quota > 0 and period > 0:
                    found.append(quota / period)
    return min(found, default=None)


def _groups(memberships: str, mounts: str) -> Iterator[PurePosixPath]:
    """Yield the folders of the process's control groups that may have a CPU quota, and the folders of their parents.

    Args:
        memberships: lines ``NUMBER:CONTROLLERS:GROUP``; in version 2, there are no controllers.
        mounts: lines ``… ROOT FOLDER … - TYPE SOURCE OPTIONS``, see proc(5).
    """
    joined = {}
    for line in memberships.splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        joined |= dict.fromkeys(controllers.split(","), group)
    for line in mounts.splitlines():
        about, _, kind = line.partition(" - ")
        kind, about = kind.split(), about.split()
        if len(kind) < 3 or len(about) < 5 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controller = "" if kind[0] == "cgroup2" else "cpu"
        if controller not in joined or (controller and controller not in kind[2].split(",")):
            continue
        root, folder = about[3], PurePosixPath(about[4].replace("\\040", " "))
        group = PurePosixPath(joined[controller])
        inner = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        yield folder
        if ".." not in inner.parts:  # otherwise the group is outside this namespace
            yield from (folder / part for part in (inner, *inner.parents) if part.parts)


def _text(file: str) -> str | None:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
