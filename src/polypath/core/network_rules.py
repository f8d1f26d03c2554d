"""Rules for arguments that are networks, wirings or statistics."""

from __future__ import annotations

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import instance, optional
from polypath.core.network import PathNet
from polypath.core.wiring import Wiring

NETWORK = instance(PathNet, legal="a network (PathNet)")
DIAGRAM = instance(PathNet, Wiring, legal="a network (PathNet) or its Wiring")
STATISTICS = optional(instance(BatchNormStatistics, legal="a BatchNormStatistics, the result of recalibrate()"))
