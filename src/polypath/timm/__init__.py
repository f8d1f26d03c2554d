"""Every registered network as a timm model: ``import polypath.timm``, then ``timm.create_model("fractalnet20")``.

The models accept ``num_classes``, ``in_chans`` and every argument of their family. With ``num_classes=0`` they have no
classifier; with ``num_classes=0, global_pool=""`` they have no head at all. They accept images of any size from
``min_size`` on. With ``features_only=True`` they return the maps of their stages (``out_indices`` selects some stages).
If the family has dropout or stochastic depth, ``drop_rate`` and ``drop_path_rate`` set their rates.
``timm.list_models(module="polypath")`` lists the models. No model has the name of a timm model.

timm's residual networks are also registered, with paths that skip blocks: ``skip_resnet50`` is timm's ``resnet50``.
"""

from polypath.families.base import CIFAR_MEAN, CIFAR_STD
from polypath.timm.configs import default_cfg
from polypath.timm.polypath import default_cfgs, register, register_shipped, register_skips

registered = [*register(), *register_shipped(), *register_skips()]
__all__ = ["CIFAR_MEAN", "CIFAR_STD", "default_cfg", "default_cfgs", "register", "register_skips", "registered"]
