"""Fit the classifier of a pretrained network before the network is fine-tuned.

In the first steps, a randomly initialised classifier sends large gradients through the pretrained weights. This is
avoided if the classifier is first fitted on the features of the frozen network (linear probing, then fine-tuning: Kumar
et al. 2022).
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polypath.core.network import PathNet
from polypath.data.sources import ImageData, load_images
from polypath.training.build import build_net, statistics_batches
from polypath.training.distributed import World
from polypath.training.recipe import Recipe

LOG = logging.getLogger(__name__)
PENALTY = 0.1  # factor on the squared weights, for features of variance 1; 0.05 to 0.5 made no difference
STEPS = 100
FOLDS = 5
SMALLEST = 1e-3  # least standard deviation of a feature: smaller values are replaced by this


def fit_head(net: PathNet, recipe: Recipe, data: ImageData, device: torch.device, world: World) -> None:
    """Fit the classifier of ``net`` on ``recipe.fit_head`` training images without augmentation. Do nothing if this
    number is 0. Rank 0 fits the classifier for all ranks.

    Raises:
        ValueError: the network does not end in a linear layer.
    """
    if not recipe.fit_head:
        return
    classifier = _classifier(net, recipe)
    net.to(device)
    if world.first:
        features, labels = _features(net, classifier, recipe, data, device)
        weight, bias = logistic(features, labels, classifier.out_features)
        with torch.no_grad():
            classifier.weight.copy_(weight)
            if classifier.bias is not None:
                classifier.bias.copy_(bias)
        LOG.info("the classifier is fitted on the features of %s training images", f"{len(labels):,}")
    fitted = {name: t.cpu() for name, t in classifier.state_dict().items()}
    classifier.load_state_dict(world.gather(fitted)[0])


def feature_error(recipe: Recipe) -> float:
    """Return the error in percent of a linear classifier on the features of the network in ``recipe.init``, by
    five-fold cross-validation on ``recipe.fit_head`` training images. It is low if the network was trained on similar
    images.

    Raises:
        ValueError: the network does not end in a linear layer, or the images cannot be loaded.
    """
    data, device = load_images(recipe.data, quiet=True), torch.device("cpu")
    net = build_net(recipe)
    classifier = _classifier(net, recipe)
    features, labels = _features(net, classifier, recipe, data, device)
    place = torch.empty_like(labels)  # of an image among the images of its class, so that folds have all classes
    for label in labels.unique():
        own = labels == label
        place[own] = torch.arange(int(own.sum()))
    wrong = 0
    for fold in range(FOLDS):
        left_out = place % FOLDS == fold
        weight, bias = logistic(features[~left_out], labels[~left_out], classifier.out_features)
        wrong += int((F.linear(features[left_out], weight, bias).argmax(1) != labels[left_out]).sum())
    return 100.0 * wrong / len(labels)


def _classifier(net: PathNet, recipe: Recipe) -> nn.Linear:
    """Return the classifier of ``net``.

    Raises:
        ValueError: it is not a linear layer.
    """
    classifier = net.get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise ValueError(
            f"fit_head = {recipe.fit_head}: the network's classifier is {type(classifier).__name__}, but must be Linear"
        )
    return classifier


@torch.no_grad()
def _features(
    net: PathNet, classifier: nn.Linear, recipe: Recipe, data: ImageData, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the classifier ``(N, features)``, and the labels ``(N,)``."""
    read: list[Tensor] = []
    labels: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    batches, mode = statistics_batches(data, recipe, device), net.training
    net.eval()
    try:
        for x, y in batches:
            net(x)
            labels.append(y)
            if sum(map(len, labels)) >= recipe.fit_head:
                break
    finally:
        batches.close()
        hook.remove()
        net.train(mode)
    return torch.cat(read)[: recipe.fit_head], torch.cat(labels)[: recipe.fit_head]


def logistic(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression by L-BFGS, and return weights ``(classes, features)`` and biases ``(classes,)``.

    For the fit, features are standardised and weights are penalised. The returned weights apply to features that are
    not standardised.
    """
    x = features.double()
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=SMALLEST)
    x = (x - mean) / std
    weight, bias = x.new_zeros(classes, x.shape[1], requires_grad=True), x.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), labels) + PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    fitted = weight.detach() / std
    return fitted.to(features.dtype), (bias.detach() - fitted @ mean).to(features.dtype)
