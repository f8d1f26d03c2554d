"""What a user writes; ``tests/test_types.py`` type-checks it against the installed wheel. It is not run."""

from typing import assert_type

import torch

import polypath as pp

net = pp.create_model("fractalnet20", num_classes=10, seed=0)
x = torch.randn(2, 3, 32, 32)
assert_type(net(x, paths="column=3"), torch.Tensor)
assert_type(net.paths("column=3"), pp.Paths)
assert_type({name: pp.cost(net, paths).macs for name, paths in net.named_paths().items()}, dict[str, int])
assert_type(pp.fuse(net)(x), torch.Tensor)
assert_type(pp.Ensemble(net, ["column=1", "column=2"])(x), torch.Tensor)
assert_type(net.config.get("model"), str | None)

recipe = pp.get_recipe("crescendonet-digits")
images = pp.load_images(recipe.data)
statistics = pp.recalibrate(net, ["column=3"], pp.training_batches(images, recipe.data, 64, seed=0))
pp.save(pp.extract(net, "column=3", stats=statistics), "column")
assert_type(pp.load("column").eval(), pp.PathNet)
assert_type(pp.train(recipe, "run", quiet=True).test_error, float)
answer = pp.AnytimePredictor(pp.Bundle.open("bundle")).predict(x.numpy(), budget_ms=2.0)
assert_type(answer.path, str)
