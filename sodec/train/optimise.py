"""From a batch to new weights: gradients, learning rate, the average of the weights, statistics of batch norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.blocks import MOMENTUM
from ..models.graphs import Captured
from .adversary import Adversary, zero
from .stages import Batch, Outcome, Stage

WARM_UP_STEPS = 100
CLIP = 1.0  # largest norm of the gradient
STATISTICS = 64  # batches over which the statistics of batch norms are taken


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
    adversary
        Whose gradient at the picture is a share of the loss's, and whose own gradients are computed along.
    """

    def __init__(
        self,
        objective: nn.Module,
        accelerator: Any,
        parameters: list[nn.Parameter],
        make_batch: Callable[[Tensor, Tensor], Batch],
        graphs: bool,
        adversary: Adversary | None = None,
    ) -> None:
        self.objective, self.accelerator, self.parameters = objective, accelerator, parameters
        self.adversary = adversary
        self.make_batch = make_batch
        self._graphs: dict[torch.Size, Captured] | None = {} if graphs else None
        self.reset()
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
        x = x.float() / 255
        outcome = Outcome(*self.objective(self.make_batch(x, quality)))
        if self._graphs is None:
            for parameter in self.parameters:
                parameter.grad = None
        zero(self.parameters)
        values = {"loss": outcome.loss, **outcome.values}
        if outcome.judged is None:
            self.accelerator.backward(outcome.loss)
        else:
            values["critic"] = self._backward_with_critic(x, outcome)
        values["gradient"] = self.accelerator.clip_grad_norm_(self.parameters, CLIP)
        detached = {name: value.detach() for name, value in values.items()}
        return outcome._replace(loss=detached["loss"], values=detached, judged=None)

    def _backward_with_critic(self, x: Tensor, outcome: Outcome) -> Tensor:
        """The gradients at the picture are computed apart, so that the critic's gets a share and no weight is tuned.

        All that the loss trains must lie behind the picture. It returns the critic's own loss.
        """
        judged, adversary = outcome.judged, self.adversary
        assert judged is not None
        assert adversary is not None
        assert outcome.y_hat is not None
        (wanted,) = torch.autograd.grad(outcome.loss, judged.x, retain_graph=True)
        (fooling,) = torch.autograd.grad(judged.deceit, judged.x)
        judged.x.backward(wanted + adversary.share(wanted, fooling))  # type: ignore[no-untyped-call]
        return adversary.learn(x, judged.features, outcome.y_hat)

    def reset(self) -> None:
        """Forgets the graphs: after a change that they don't know of."""
        if self._graphs is not None:
            self._graphs = {}
            self._pool = torch.cuda.graph_pool_handle()  # a pool whose graphs are all gone can't be captured into again

    def _stacked_values(self, x: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        """What a graph returns: all values in one tensor."""
        outcome = self._compute(x, quality)
        self._names = list(outcome.values)
        return (torch.stack([value.float() for value in outcome.values.values()]),)


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


def batch_norms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Those that are being trained, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d) and m.weight.requires_grad}


@torch.no_grad()
def take_statistics(norms: Iterable[nn.BatchNorm2d], run: Callable[[], None]) -> None:
    """Sets means and variances to those over all that `run` shows; they are frozen then.

    Those that training keeps are of the weights of the last 50 steps: at a high learning rate the averaged weights drew
    patterns with them. Once frozen they are constants of the function that is trained, and of its average.
    """
    norms = list(norms)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    run()
    for norm in norms:
        norm.momentum = MOMENTUM
        norm.eval()
