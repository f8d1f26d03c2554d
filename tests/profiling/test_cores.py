"""Cores by the CPU quota of control groups, read from made-up trees of files."""

from __future__ import annotations

import os

import pytest

from polypath.profiling import cores as module
from polypath.profiling.cores import cores, cpu_quota

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def tree(memberships: str, mounts: str, **files: str):
    found = {"/proc/self/cgroup": memberships, "/proc/self/mountinfo": mounts}
    found |= {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
    return found.get


def v2(group: str, mounts: str = V2, **files: str):
    return tree(f"0::{group}\n", mounts, **files)


def v1(group: str, root: str = "/", **quotas: str):
    files = {}
    for folder, quota in quotas.items():
        files[f"cpu,cpuacct/{folder}cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"cpu,cpuacct/{folder}cpu.cfs_period_us"] = "100000\n"
    groups = f"5:cpuset:/elsewhere\n4:cpu,cpuacct:{group}\n0::/\n"
    return tree(groups, V1.format(root=root), **files)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        # version 2: a container with a namespace of its own; a group in the host's tree; one with a quota above it
        (v2("/", **{"cpu.max": "200000 100000\n"}), 2.0),
        (v2("/", **{"cpu.max": "50000 100000\n"}), 0.5),
        (v2("/", **{"cpu.max": "max 100000\n"}), None),
        (v2("/pods/one", **{"pods/one/cpu.max": "150000 50000\n", "pods/two/cpu.max": "100 100000\n"}), 3.0),
        (v2("/pods/one", **{"pods/one/cpu.max": "max 100000\n", "pods/cpu.max": "400000 100000\n"}), 4.0),
        (v2("/pods/one", **{"pods/one/cpu.max": "800000 100000\n", "pods/cpu.max": "400000 100000\n"}), 4.0),
        (v2("/../../one", **{"cpu.max": "100000 100000\n"}), 1.0),
        (v2("/pods/one", V2.replace("0:28 /", "0:28 /pods"), **{"one/cpu.max": "300000 100000\n"}), 3.0),
        # version 1: mounted whole; its own group bound to the folder, as Docker does; -1 is no quota
        (v1("/", **{"": "250000"}), 2.5),
        (v1("/docker/abc", **{"docker/abc/": "200000", "docker/": "-1"}), 2.0),
        (v1("/docker/abc", "/docker/abc", **{"": "200000"}), 2.0),
        (v1("/", **{"": "-1"}), None),
        # both: version 1 has the controller, version 2 is mounted beside it
        (tree("1:cpu:/\n0::/\n", V1.format(root="/") + V2, **{"cpu,cpuacct/cpu.cfs_quota_us": "300000"}), None),
        # what is missing or damaged is no quota
        (dict[str, str]().get, None),
        (v2("/", "nonsense\n31 23 - cgroup2\n", **{"cpu.max": "100000 100000\n"}), None),
        (v2("/", **{"cpu.max": "many few\n"}), None),
        (v2("/", **{"cpu.max": "100000 0\n"}), None),
        (tree("nonsense", V2, **{"cpu.max": "100000 100000\n"}), 1.0),
    ],
)
def test_the_strictest_quota_of_a_tree_holds(files, quota):
    assert cpu_quota(files) == quota


@pytest.mark.parametrize(("quota", "count"), [(None, 8), (3.0, 3), (1.5, 1), (0.1, 1), (64.0, 8)])
def test_cores_are_those_of_the_process_and_of_its_quota(monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(module, "cpu_quota", lambda read: quota)
    assert cores() == count


def test_where_processes_are_not_bound_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(module, "cpu_quota", lambda read: None)
    assert cores() == 6
