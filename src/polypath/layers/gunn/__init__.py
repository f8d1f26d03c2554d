"""GUNN's layer (Qiao et al. 2018, §3): the reference and the in-place update."""

from polypath.layers.gunn.layer import BACKWARDS, ORDERS, Bottleneck, GunnLayer, UpdateUnit, check_segments

__all__ = ["BACKWARDS", "ORDERS", "Bottleneck", "GunnLayer", "UpdateUnit", "check_segments"]
