"""An early-exit network in plain torch with three stages and a head after each. The bench trains it for EPOCHS (8)."""

import os

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

name, EPOCHS, BATCH, WIDTHS = "early exit", int(os.environ.get("EPOCHS", "8")), 128, (32, 64, 128)


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        pairs = zip((channels, *WIDTHS), WIDTHS, strict=False)
        convs = [(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU()) for a, b in pairs]
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in convs)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in WIDTHS)

    def forward(self, images, last=3):
        x, found = images.permute(0, 3, 1, 2).float() / 127.5 - 1, []
        for stage, head in zip(self.stages[:last], self.heads, strict=False):
            x = stage(x)
            found.append(head(x.mean((2, 3))))
        return found


def train(train, held_out, folder, seed):
    torch.manual_seed(seed)
    x, y = torch.from_numpy(train.pixels), torch.from_numpy(train.labels)
    net = Net(x.shape[-1], int(y.max()) + 1)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(BATCH):
            loss = torch.stack([nn.functional.cross_entropy(scores, y[rows]) for scores in net(x[rows])]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    save_file(net.state_dict(), folder / "net.safetensors")
    with FlopCounterMode(display=False) as counted:
        net(x[:1])
    return 3 * counted.get_total_flops() * EPOCHS * len(y) / 1e15  # a backward pass costs as much as two forward passes


def options(folder):
    weights = load_file(folder / "net.safetensors")
    net = Net(weights["stages.0.0.weight"].shape[1], len(weights["heads.0.bias"]))
    net.load_state_dict(weights)
    return {f"exit {i}": lambda image, i=i: net(torch.from_numpy(image)[None], i)[-1][0] for i in (1, 2, 3)}
