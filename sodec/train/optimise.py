"""From a batch to new weights: gradients, learning rate, the average of the weights, statistics of batch norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..models.blocks import MOMENTUM
from ..models.graphs import Captured
from .adversary import SLOWNESS, Critic
from .stages import Batch, Judged, Outcome, Stage

WARM_UP_STEPS = 100
CLIP = 1.0  # largest norm of the gradient
STATISTICS = 64  # batches over which the statistics of batch norms are taken
CRITIC_SHARE = 0.5  # of the critic's gradient at the picture beside that of all other terms


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """Linear warm-up, then half a cosine from the stage's learning rate to its final share."""
    share = stage.final + (1 - stage.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return stage.learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)


class Gradients:
    """Computes the loss of a batch and leaves its clipped gradients in the parameters.

    With `graphs` each step is replayed as a CUDA graph, one per size of crops: it then costs the CPU next to nothing,
    where eager execution launches thousands of kernels one by one. Such a loss must draw its random numbers on the
    device, because what it draws on the CPU is drawn only once, at capture. Without a critic it gives no pictures:
    `Outcome.decoded` is None.

    Parameters
    ----------
    objective
        A module that maps a `Batch` to an `Outcome`.
    make_batch
        Makes a `Batch` of pictures (B, 3, H, W) in 0..1 and qualities (B,).
    critic
        Whose gradient is a share of the loss's; it has a step of its own.
    """

    def __init__(
        self,
        objective: nn.Module,
        accelerator: Any,
        parameters: list[nn.Parameter],
        make_batch: Callable[[Tensor, Tensor], Batch],
        graphs: bool,
        critic: Critic | None = None,
    ) -> None:
        self.objective, self.accelerator, self.parameters = objective, accelerator, parameters
        self.critic = critic
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
        values, *pictures = self._graphs[x.shape](x, quality)
        named = dict(zip(self._names, values, strict=True))
        decoded, y_hat = pictures or (None, None)
        return Outcome(named["loss"], named, decoded, y_hat)

    def _compute(self, x: Tensor, quality: Tensor) -> Outcome:
        outcome = Outcome(*self.objective(self.make_batch(x.float() / 255, quality)))
        if self._graphs is None:
            for parameter in self.parameters:
                parameter.grad = None
        elif gradients := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_zero_(gradients)  # in place: the graph holds their addresses
        if outcome.judged is None:
            self.accelerator.backward(outcome.loss)
        else:
            self._backward_with_critic(outcome.loss, outcome.judged)
        norm = self.accelerator.clip_grad_norm_(self.parameters, CLIP)
        values = {"loss": outcome.loss, **outcome.values, "gradient": norm}
        detached = {name: value.detach() for name, value in values.items()}
        return outcome._replace(loss=detached["loss"], values=detached, judged=None)

    def _backward_with_critic(self, loss: Tensor, judged: Judged) -> None:
        """The gradients at the picture are computed apart, so that the critic's gets a share and no weight is tuned.

        All that the loss trains must lie behind the picture.
        """
        assert self.critic is not None
        (wanted,) = torch.autograd.grad(loss, judged.x, retain_graph=True)
        (fooling,) = torch.autograd.grad(judged.deceit, judged.x)
        ratio = self.critic.ratio
        ratio.lerp_(wanted.norm() / fooling.norm().clamp_min(1e-12), SLOWNESS)
        judged.x.backward(wanted + CRITIC_SHARE * ratio * fooling)  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Forgets the graphs: after a change that they don't know of."""
        if self._graphs is not None:
            self._graphs = {}

    def _stacked_values(self, x: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        """What a graph returns: all values in one tensor, and for a critic the pictures and y_hat."""
        outcome = self._compute(x, quality)
        self._names = list(outcome.values)
        values = torch.stack([value.float() for value in outcome.values.values()])
        if self.critic is None:
            return (values,)
        assert outcome.decoded is not None
        assert outcome.y_hat is not None
        return values, outcome.decoded, outcome.y_hat


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
