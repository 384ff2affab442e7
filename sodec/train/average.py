"""Exponential moving average of the trained weights: what is exported, smoother than the last step's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Averages of the parameters of `module` that require a gradient, by their names."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """One step further; the first steps count for less, so that the start is soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values: list[Tensor] = list(self.values.values())
        parameters: list[Tensor] = list(self.parameters.values())
        torch._foreach_lerp_(values, parameters, 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Takes the values of a checkpoint."""
        for name, value in values.items():
            self.values[name].copy_(value)
