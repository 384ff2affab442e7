"""The recipe: a loss function per stage, the parts that each stage trains, and the order of the stages.

Each picture's loss is divided by sqrt(lambda / LAMBDA_MIDDLE), so that all qualities have gradients of a like size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import TrainingError
from ..models import ModelConfig
from ..models.blocks import Fidelity
from ..models.flow import Flow
from .adversary import Critic, generator_loss
from .losses import (
    LAMBDA_HIGH,
    LAMBDA_LOW,
    colour,
    lambdas,
    lattice,
    log_linear,
    repeats,
    squared_error,
    structure,
    tint,
)
from .parts import Coded, Parts

LAMBDA_MIDDLE, QUALITY_MIDDLE = math.sqrt(LAMBDA_LOW * LAMBDA_HIGH), 50.5
# Weights against bits per pixel, at qualities 1 and 100. Squared error should pay for about a fifth of what a bit more
# costs, structure and perception for the rest; estimated from how each falls with the rate.
STRUCTURE = (0.10, 15.0)  # of -log MS-SSIM
PERCEPTUAL = (0.16, 75.0)  # of ST-LPIPS; a larger weight raises the rate of every quality
LATTICE = (0.006, 0.33)  # of `losses.lattice`
REPEATS = (9e-3, 0.375)  # of `losses.repeats`, of what D_m adds
COLOUR = (4e-4, 0.018)  # of `losses.colour`, which the perceptual term hardly sees
TINT = (5e-4, 0.02)  # of `losses.tint`
ERROR, ERROR_FIDELITY = 0.12, 0.12  # shares of squared error, of the final and of the fidelity picture
ERROR_ALONE = 0.2  # share where there is one picture and no perceptual term

Distance = Callable[[Tensor, Tensor], Tensor]  # between pictures (B, 3, H, W): (N,), of the first N <= B


@dataclass(frozen=True)
class Batch:
    """What a loss reads: pictures (B, 3, H, W) in 0..1, qualities (B,), and other networks' terms where due."""

    x: Tensor
    quality: Tensor
    perceptual: Distance | None = None
    perception: tuple[float, float] = (1.0, 1.0)  # the stage's shares of the perceptual weight, at qualities 1 and 100
    critic: Critic | None = None


class Outcome(NamedTuple):
    """What a loss gives: the scalar to minimise, its terms for the log, and the pictures that it judged."""

    loss: Tensor
    values: dict[str, Tensor]
    decoded: Tensor | None = None  # (B, 3, H, W), for the critic and the log
    y_hat: Tensor | None = None  # (B, Cy, H/16, W/16), that they were decoded from
    judged: Judged | None = None  # in the adversarial stage


class Judged(NamedTuple):
    """What a critic's gradient is computed from: `optimise.Gradients` scales it to a share of the loss's."""

    x: Tensor  # (B, 3, H, W), with its graph
    features: list[Tensor]  # what the critic sees of it
    deceit: Tensor


Loss = Callable[[Parts, Batch], Outcome]


def compression(parts: Parts, batch: Batch) -> Outcome:
    """Stage 1: rate, and the error and appearance of the fidelity picture."""
    coded = parts.code(batch.x, batch.quality)
    fidelity = parts.model.fidelity(coded.y_hat, batch.quality).picture
    error = squared_error(fidelity, batch.x)
    weight = lambdas(batch.quality)
    appearance, terms = _appearance(fidelity, batch, batch.quality)
    loss = ((coded.bpp + ERROR_ALONE * weight * error) * _balance(weight)).mean() + appearance
    values = {**coded.values(), "mse_f": error.mean(), **terms}
    return Outcome(loss, values, fidelity.detach(), coded.y_hat.detach())


def warm_up(parts: Parts, batch: Batch) -> Outcome:
    """Stage 2: the diffusion branch learns to turn the frozen coded latent into one that D_m decodes to the picture."""
    with torch.no_grad():
        coded = parts.code(batch.x, batch.quality)
    flow = _diffuse(parts, coded, batch.quality)
    x, fidelity = flow.x, flow.x_f
    error = squared_error(x, batch.x)
    weight = lambdas(batch.quality)
    appearance, terms = _appearance(x, batch, batch.quality)
    loss = (weight * error * _balance(weight)).mean() + appearance
    values = {"mse": error.mean(), "mse_f": squared_error(fidelity, batch.x).mean(), **terms}
    return Outcome(loss, values, x.detach(), coded.y_hat)


def annealing(parts: Parts, batch: Batch) -> Outcome:
    """Stage 3 and the finish: rate, the errors of both pictures, and appearance, together."""
    coded = parts.code(batch.x, batch.quality)
    from_y = parts.model.fidelity(coded.y_hat, batch.quality)
    fidelity = from_y.picture.float()
    x = _diffuse(parts, coded, batch.quality, from_y).x.float()
    error_f = squared_error(fidelity, batch.x)
    weight = lambdas(batch.quality)
    final, terms = _final(x, fidelity.detach(), batch)
    loss = ((coded.bpp + weight * ERROR_FIDELITY * error_f) * _balance(weight)).mean() + final
    values = {**coded.values(), "mse_f": error_f.mean(), **terms}
    return Outcome(loss, values, x.detach(), coded.y_hat.detach())


def decoding(parts: Parts, batch: Batch) -> Outcome:
    """The decoder alone, coding and D_a frozen: error and appearance of the final picture, and a critic's view of it.

    D_a was trained along once, by its own picture and as a guide. The fidelity picture, where the final one begins,
    lost 0.15 dB and 0.004 of MS-SSIM, and the final one as much (docs/training-log.md).
    """
    with torch.no_grad():
        coded = parts.code(batch.x, batch.quality)
        from_y = parts.model.fidelity(coded.y_hat, batch.quality)
    fidelity = from_y.picture.float()
    x = _diffuse(parts, coded, batch.quality, from_y).x.float()  # of 16 bits accelerate would hand out a copy
    loss, terms = _final(x, fidelity, batch)
    values = {"mse_f": squared_error(fidelity, batch.x).mean(), **terms}
    if batch.critic is None:
        return Outcome(loss, values, x.detach(), coded.y_hat)
    features = batch.critic.features(x)
    values["deceit"] = deceit = generator_loss(batch.critic(features, coded.y_hat))
    return Outcome(loss, values, x.detach(), coded.y_hat, Judged(x, features, deceit))


def _final(x: Tensor, fidelity: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The error and appearance of the final picture x beside x_f, (B, 3, H, W) each, and values for the log."""
    error, weight = squared_error(x, batch.x), lambdas(batch.quality)
    distortion = weight * ERROR * error
    distortion = distortion + log_linear(batch.quality, *LATTICE) * lattice(x, batch.x)
    distortion = distortion + log_linear(batch.quality, *REPEATS) * repeats(x - fidelity)
    distortion = distortion + log_linear(batch.quality, *COLOUR) * colour(x, batch.x)
    appearance, terms = _appearance(x, batch, batch.quality)
    return (distortion * _balance(weight)).mean() + appearance, {"mse": error.mean(), **terms}


def _diffuse(parts: Parts, coded: Coded, quality: Tensor, fidelity: Fidelity | None = None) -> Flow:
    """The decoder's run. It begins from x_f but does not train D_a, whose picture is to be faithful.

    `fidelity` is what D_a gives, if it is known. One that D_a learns from is computed again: it trains y_hat alone.
    """
    model, y_hat = parts.model, coded.y_hat
    if fidelity is None or fidelity.pixels.requires_grad:
        frozen = {name: p.detach() for name, p in model.fidelity.named_parameters()}
        fidelity = functional_call(model.fidelity, frozen, (y_hat, quality))
    batch, _, height, width = y_hat.shape
    channels = model.config.noise
    noise = torch.randn(batch, channels, 4 * height, 4 * width, device=y_hat.device) if channels else None
    w = model.content_latent(coded.z_hat, y_hat)
    return Flow(model, y_hat, quality, w=w, noise=noise, fidelity=fidelity).run()


def _balance(weight: Tensor) -> Tensor:
    return (LAMBDA_MIDDLE / weight).sqrt()


def _appearance(x: Tensor, batch: Batch, quality: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The terms that see more than squared error does, weighted for the quality and balanced like the other terms.

    Beside their weighted sum it returns their mean values, unweighted, for the log.
    """
    balance = _balance(lambdas(quality))
    contrast, off_colour = structure(x, batch.x), tint(x, batch.x)
    values = {"structure": contrast.mean(), "tint": off_colour.mean()}
    terms = log_linear(quality, *STRUCTURE) * contrast + log_linear(quality, *TINT) * off_colour
    loss = (terms * balance).mean()
    if batch.perceptual is not None:
        distance = batch.perceptual(x, batch.x)  # of the first few pictures
        values["perceptual"] = distance.mean()
        weight = log_linear(quality, *batch.perception) * log_linear(quality, *PERCEPTUAL) * balance
        loss = loss + (weight[: len(distance)] * distance).mean()
    return loss, values


@dataclass(frozen=True)
class Stage:
    """A stage of training."""

    loss: Loss
    trains: tuple[str, ...]  # names of `Parts`; all others are frozen
    learning_rate: float  # at its highest
    final: float  # share of the learning rate at the end of the cosine
    lowest: tuple[float, float] = (1.0, 1.0)  # lowest quality drawn: at the start, and from half of the stage on
    perceptual: tuple[float, float] | None = None  # shares of the weight of ST-LPIPS, at qualities 1 and 100
    adversarial: bool = False
    frozen: float = 2 / 3  # of the stage, after which batch norms keep their statistics


CODING = ("analysis", "hyper_analysis", "gain", "mean", "context", "scale_network", "prior", "fidelity")
DIFFUSION = ("content", "transform", "projection", "unet")
DECODER = (*DIFFUSION, "latent_decoder")
LITE_HAS_NOT = ("content",)

# Above 3e-4 wide layers of the decoder diverge: Adam moves 1,440 inputs of a constant sign together.
STAGES: dict[str, Stage] = {
    "compression": Stage(compression, CODING, 1e-3, 0.2, (40.0, 40.0)),
    # The paper freezes D_m, which is Stable Diffusion's. That of `lite` has only what is trained here.
    "warm-up": Stage(warm_up, DECODER, 3e-4, 0.5, (40.0, 40.0)),
    "annealing": Stage(annealing, (*CODING, *DECODER), 3e-4, 0.6, (40.0, 1.0)),
    "finish": Stage(annealing, (*CODING, *DECODER), 2.5e-4, 0.0, perceptual=(1.0, 1.0)),
    # The coding is frozen: no bits should pay for perception, only for structure.
    "decoder": Stage(decoding, DECODER, 3e-4, 0.5, perceptual=(3.0, 1.5)),
    # Only the decoder's side: a critic must not change what is sent. ST-LPIPS counts less beside it, since it takes
    # hatching for detail.
    "adversarial": Stage(decoding, DECODER, 2e-4, 0.0, perceptual=(1.4, 0.7), adversarial=True, frozen=0.5),
}


class Step(NamedTuple):
    """A stage of a recipe."""

    stage: str
    share: float  # of the whole length
    start: tuple[str, ...] = ()  # earlier stages whose parts it takes; without any, those of the options
    large: bool = False  # crops 1.5 times as wide and half as many, since later stages need more context


# All stages in the paper's order, with the shares that paid in lite's trainings (docs/training-log.md).
ALL = (
    Step("compression", 0.30),
    Step("warm-up", 0.05, ("compression",)),
    Step("annealing", 0.20, ("warm-up",), large=True),
    Step("finish", 0.10, ("annealing",), large=True),
    Step("decoder", 0.25, ("finish",), large=True),
    Step("adversarial", 0.10, ("decoder",), large=True),
)
RECIPES = {
    "all": ALL,
    # A better picture from the same streams, beginning with weights that there are.
    "picture": (Step("decoder", 0.25), Step("adversarial", 0.75, ("decoder",))),
}

PUBLIC = ("vit", "latent_decoder")  # parts of `sd21` that stay as they were published
PUBLIC_RATE = 0.1  # of lite's learning rates: 1e-4 for the coding, as HiFiC's, and 3e-5 for the UNet; OSEDiff's is 5e-5


def stage_for(name: str, config: ModelConfig) -> Stage:
    """The stage of this name, as this configuration trains it.

    Raises
    ------
    TrainingError
        There is no such stage, or the configuration has no use for it.
    """
    if name not in STAGES:
        raise TrainingError(f"the stage must be one of {', '.join(STAGES)} (got {name!r})")
    stage = STAGES[name]
    if config.sizes is None:
        return replace(stage, trains=tuple(part for part in stage.trains if part not in LITE_HAS_NOT))
    missing = () if config.context else ("context",)
    trains = tuple(part for part in stage.trains if part not in (*PUBLIC, *missing))
    return replace(stage, trains=trains, learning_rate=stage.learning_rate * PUBLIC_RATE)


def adjusted(stage: Stage, learning_rate: float | None, final: float | None, lowest: float | None) -> Stage:
    """The stage with the given values in place of its own; None keeps its own."""
    changes: dict[str, Any] = {"learning_rate": learning_rate, "final": final}
    changes["lowest"] = None if lowest is None else (lowest, min(lowest, stage.lowest[1]))
    return replace(stage, **{name: value for name, value in changes.items() if value is not None})


def lowest_quality(stage: Stage, progress: float) -> float:
    """Rate annealing: until half of the stage the lowest quality drawn falls linearly from lowest[0] to lowest[1].

    Lambda, the price of a bit against error, is log-linear in quality (`losses.lambdas`), so it rises as in the paper,
    while the model keeps serving the high rates that it began with.
    """
    first, last = stage.lowest
    return first + (last - first) * min(1.0, 2 * progress)
