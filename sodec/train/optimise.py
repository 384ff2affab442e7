"""From a batch to new weights: gradients, learning rate, the average of the weights, and the bound on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.graphs import Captured
from .stages import Batch, Outcome, Stage

WARM_UP_STEPS = 100
CLIP = 1.0  # largest norm of the gradient
LARGEST = 2.5  # largest singular value of a bounded layer; a new layer has 0.1 to 2.3


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """Linear warm-up, then half a cosine from the stage's learning rate to its final share."""
    share = stage.final + (1 - stage.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return stage.learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)


class Gradients:
    """Computes the loss of a batch and leaves its clipped gradients in the parameters.

    With `graphs` each step is replayed as a CUDA graph, one per size of crops: it then costs the CPU next to nothing,
    where eager execution launches thousands of kernels one by one. Such a loss must draw its random numbers on the
    device, because what it draws on the CPU is drawn only once, at capture. It gives no pictures: `Outcome.decoded` is
    None.

    Parameters
    ----------
    objective
        A module that maps a `Batch` to an `Outcome`.
    make_batch
        Makes a `Batch` of pictures (B, 3, H, W) in 0..1 and qualities (B,).
    """

    def __init__(
        self,
        objective: nn.Module,
        accelerator: Any,
        parameters: list[nn.Parameter],
        make_batch: Callable[[Tensor, Tensor], Batch],
        graphs: bool,
    ) -> None:
        self.objective, self.accelerator, self.parameters = objective, accelerator, parameters
        self.make_batch = make_batch
        self._graphs: dict[torch.Size, Captured] | None = {} if graphs else None
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._names: list[str] = []

    def __call__(self, x: Tensor, quality: Tensor) -> Outcome:
        """x (B, 3, H, W) uint8 and quality (B,), on the device. The values end with the norm of the gradient."""
        if self._graphs is None:
            return self._compute(x, quality)
        if x.shape not in self._graphs:
            self._graphs[x.shape] = Captured(self._stacked_values, (x, quality), self._pool)
        (values,) = self._graphs[x.shape](x, quality)
        named = dict(zip(self._names, values, strict=True))
        return Outcome(named["loss"], named)

    def _compute(self, x: Tensor, quality: Tensor) -> Outcome:
        outcome = Outcome(*self.objective(self.make_batch(x.float() / 255, quality)))
        if self._graphs is None:
            for parameter in self.parameters:
                parameter.grad = None
        elif gradients := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_zero_(gradients)  # in place: the graph holds their addresses
        self.accelerator.backward(outcome.loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, CLIP)
        values = {"loss": outcome.loss, **outcome.values, "gradient": norm}
        detached = {name: value.detach() for name, value in values.items()}
        return outcome._replace(loss=detached["loss"], values=detached)

    def _stacked_values(self, x: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        """What a graph returns: all values in one tensor."""
        values = self._compute(x, quality).values
        self._names = list(values)
        return (torch.stack([value.float() for value in values.values()]),)


class Average:
    """Exponential moving average of the trained weights: what is exported, smoother than the last step's weights.

    It has the parameters of `module` that require a gradient, by name.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step of the optimiser. In the first steps the decay is lower, so that the start is soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values: list[Tensor] = list(self.values.values())
        parameters: list[Tensor] = list(self.parameters.values())
        torch._foreach_lerp_(values, parameters, 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Takes the values of a checkpoint."""
        for name, value in values.items():
            self.values[name].copy_(value)


class Bound:
    """Keeps the largest singular value of every weight of `module` below LARGEST, by one power iteration a step.

    A layer that a norm follows loses nothing by growing, but the layers before it stop learning. Without the bound the
    UNet's first block went from 2 to 15, nearly all of it in one direction, and gave features of 460, while the layers
    behind it stayed as they were initialised.
    """

    def __init__(self, module: nn.Module) -> None:
        self.weights = [p for p in module.parameters() if p.ndim >= 2 and p.requires_grad]
        self.directions = [torch.ones(len(weight), device=weight.device) for weight in self.weights]
        for _ in range(10):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> list[Tensor]:
        """Estimates the largest singular values and improves the directions by one power iteration."""
        largest = []
        for number, weight in enumerate(self.weights):
            matrix = weight.flatten(1)
            image = matrix @ nn.functional.normalize(matrix.T @ self.directions[number], dim=0)
            largest.append(image.norm())
            self.directions[number] = nn.functional.normalize(image, dim=0)
        return largest

    @torch.no_grad()
    def apply(self) -> None:
        """After a step of the optimiser."""
        for weight, size in zip(self.weights, self._iterate(), strict=True):
            weight.mul_(LARGEST / size.clamp_min(LARGEST))

    def load(self, directions: list[Tensor]) -> None:
        """Takes the directions of a checkpoint."""
        for own, saved in zip(self.directions, directions, strict=True):
            own.copy_(saved)
