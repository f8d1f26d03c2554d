"""Every registered network as a timm model: ``import polypath.timm``, then ``timm.create_model("fractalnet20")``.

They accept ``num_classes`` (0: no classifier; with ``global_pool=""`` no head at all), ``in_chans`` and every argument
of their family, and images of any size from ``min_size`` on. With ``features_only=True`` they return the maps of their
stages (``out_indices`` selects some). ``drop_rate`` is the family's dropout and ``drop_path_rate`` its stochastic
depth, if it has them. ``timm.list_models(module="polypath")`` lists them; they never use timm's own names.

timm's residual networks are also registered, as ``skip_`` and their name (``skip_resnet50``), with paths that skip
blocks.
"""

from polypath.families.base import CIFAR_MEAN, CIFAR_STD
from polypath.timm.configs import default_cfg
from polypath.timm.polypath import default_cfgs, register, register_shipped, register_skips

registered = [*register(), *register_shipped(), *register_skips()]
__all__ = ["CIFAR_MEAN", "CIFAR_STD", "default_cfg", "default_cfgs", "register", "register_skips", "registered"]
