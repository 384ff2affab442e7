"""The critic of the adversarial stage, its losses, and its own step.

A conditional patch discriminator with the non-saturating loss, as in HiFiC (Mentzer et al., NeurIPS 2020).
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

CONDITION = 12  # channels that y_hat is reduced to before it is concatenated with the picture
BETAS = (0.5, 0.99)  # of Adam


class Critic(nn.Module):
    """Pictures (B, 3, H, W) and y_hat (B, Cy, H/16, W/16) to logits (B, 1, H/16, W/16): real above 0."""

    def __init__(self, y_channels: int, width: int = 48) -> None:
        super().__init__()
        self.condition = nn.Conv2d(y_channels, CONDITION, 3, padding=1)
        widths = [3 + CONDITION, width, 2 * width, 4 * width, 4 * width]
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(widths))
        self.leave = spectral_norm(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: Tensor, y_hat: Tensor) -> Tensor:
        condition = F.interpolate(F.leaky_relu(self.condition(y_hat), 0.2), scale_factor=16, mode="nearest")
        x = torch.cat([2 * x - 1, condition.to(x.dtype)], 1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.leave(x)


def generator_loss(logits: Tensor) -> Tensor:
    """Mean of -log D over decoded pictures."""
    return F.softplus(-logits.float()).mean()


def critic_loss(real: Tensor, decoded: Tensor) -> Tensor:
    """Mean of -log D over originals plus mean of -log(1 - D) over decoded pictures."""
    return F.softplus(-real.float()).mean() + F.softplus(decoded.float()).mean()


class Adversary:
    """A critic with its optimiser."""

    def __init__(self, y_channels: int, learning_rate: float, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.critic: nn.Module = Critic(y_channels).to(accelerator.device)
        self.optimizer: Any = torch.optim.Adam(self.critic.parameters(), learning_rate, BETAS)

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
