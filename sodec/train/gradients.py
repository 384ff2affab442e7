"""Loss and gradients of a batch: computed step by step, or replayed on a GPU as a CUDA graph of each size of crops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.graphs import Captured
from .stages import Batch

CLIP = 1.0  # largest norm of the gradient
Fill = Callable[[Tensor, Tensor], Batch]


class Gradients:
    """The loss of a batch and its clipped gradients, left in the parameters.

    Replayed, a step costs the CPU next to nothing, where eager it launches thousands of kernels one by one. A loss must
    then make its random numbers on the device, since what it draws on the CPU is drawn once, and there are no pictures
    to look at: `Batch.decoded` is not left.
    """

    def __init__(
        self, objective: nn.Module, accelerator: Any, parameters: list[nn.Parameter], fill: Fill, graphs: bool
    ) -> None:
        self.objective, self.accelerator, self.parameters, self.fill = objective, accelerator, parameters, fill
        self._graphs: dict[torch.Size, Captured] | None = {} if graphs else None
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._names: list[str] = []

    def __call__(self, x: Tensor, quality: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """x (B, 3, H, W) uint8 and quality (B,), on the device. Values: the loss, its parts, the gradient's norm."""
        if self._graphs is None:
            return self._compute(x, quality)
        if x.shape not in self._graphs:
            self._graphs[x.shape] = Captured(self._flat, (x, quality), self._pool)
        flat = self._graphs[x.shape](x, quality)
        return self.fill(x, quality), dict(zip(self._names, flat[0], strict=True))

    def _compute(self, x: Tensor, quality: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        batch = self.fill(x.float() / 255, quality)
        loss, values = self.objective(batch)
        if self._graphs is None:
            for parameter in self.parameters:
                parameter.grad = None
        elif kept := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_zero_(kept)  # their places are part of the graph
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, CLIP)
        values = {"loss": loss, **values, "gradient": norm}
        return batch, {name: value.detach() for name, value in values.items()}

    def _flat(self, x: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        values = self._compute(x, quality)[1]
        self._names = list(values)
        return (torch.stack([value.float() for value in values.values()]),)
