"""The recipe: a loss function per stage, the parts that each stage trains, and the order of the stages.

Each picture's loss is divided by sqrt(lambda / LAMBDA_MIDDLE), so that all qualities have gradients of a like size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..errors import TrainingError
from ..models import ModelConfig
from ..models.blocks import Origin
from ..models.flow import Flow
from .adversary import generator_loss
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
from .parts import Parts

LAMBDA_MIDDLE, QUALITY_MIDDLE = math.sqrt(LAMBDA_LOW * LAMBDA_HIGH), 50.5
# Weights against bits per pixel, at qualities 1 and 100. Squared error should pay for about a fifth of what a bit more
# costs, structure and perception for the rest; estimated from how each falls with the rate.
STRUCTURE = (0.10, 15.0)  # of -log MS-SSIM
PERCEPTUAL = (0.16, 75.0)  # of ST-LPIPS; a larger weight raises the rate of every quality
LATTICE = (0.006, 0.33)  # of `losses.lattice`
REPEATS = (6e-3, 0.25)  # of `losses.repeats`, of what D_m adds
COLOUR = (4e-4, 0.018)  # of `losses.colour`, which the perceptual term hardly sees
TINT = (5e-4, 0.02)  # of `losses.tint`
ERROR, ERROR_FIDELITY = 0.12, 0.12  # shares of squared error, of the final and of the fidelity picture
ERROR_ALONE = 0.2  # share where there is one picture and no perceptual term
ADVERSARIAL = 0.02  # weight of the critic's term

Distance = Callable[[Tensor, Tensor], Tensor]  # between pictures (B, 3, H, W): (N,), of the first N <= B


@dataclass(frozen=True)
class Batch:
    """What a loss reads: pictures (B, 3, H, W) in 0..1, qualities (B,), and other networks' terms where due."""

    x: Tensor
    quality: Tensor
    perceptual: Distance | None = None
    perception: float = 1.0  # the stage's share of the perceptual weight
    critic: Distance | None = None  # of pictures and y_hat: logits


class Outcome(NamedTuple):
    """What a loss gives: the scalar to minimise, its terms for the log, and the pictures that it judged."""

    loss: Tensor
    values: dict[str, Tensor]
    decoded: Tensor | None = None  # (B, 3, H, W), for the critic and the log
    y_hat: Tensor | None = None  # (B, Cy, H/16, W/16), that they were decoded from


Loss = Callable[[Parts, Batch], Outcome]


def autoencoder(parts: Parts, batch: Batch) -> Outcome:
    """Stage 0: E_m and D_m. Noise and a small weight on its square keep the latent smooth and near unit variance."""
    assert parts.latent_encoder is not None
    latent = parts.latent_encoder(batch.x).float()
    x = parts.model.picture(latent + 0.1 * torch.randn_like(latent), coarse(batch.x))
    error = squared_error(x, batch.x)
    appearance, terms = _appearance(x, batch, torch.full_like(batch.quality, QUALITY_MIDDLE))
    loss = LAMBDA_MIDDLE * error.mean() + 0.005 * latent.square().mean() + appearance
    return Outcome(loss, {"mse": error.mean(), "latent": latent.std(), **terms}, x.detach())


def denoiser(parts: Parts, batch: Batch) -> Outcome:
    """Stage 0: the UNet predicts the noise in a latent at every t, guided by tokens of the original picture."""
    model = parts.model
    assert parts.latent_encoder is not None
    with torch.no_grad():
        latent = parts.latent_encoder(batch.x).float()
    step = torch.randint(0, len(model.alphas), (len(latent),), device=latent.device)
    a = model.alphas[step][:, None, None, None]
    noise = torch.randn_like(latent)
    origin = _origin(latent.device)
    tokens = model.guidance(batch.x, origin)
    eps = model.unet(a.sqrt() * latent + (1 - a).sqrt() * noise, step, tokens, origin)
    loss = F.mse_loss(eps, noise)
    return Outcome(loss, {"eps": loss})


def compression(parts: Parts, batch: Batch) -> Outcome:
    """Stage 1: rate, and the error and appearance of the fidelity picture."""
    coded = parts.code(batch.x, batch.quality)
    fidelity = parts.model.fidelity(coded.y_hat, batch.quality)
    error = squared_error(fidelity, batch.x)
    weight = lambdas(batch.quality)
    appearance, terms = _appearance(fidelity, batch, batch.quality)
    loss = ((coded.bpp + ERROR_ALONE * weight * error) * _balance(weight)).mean() + appearance
    values = {**coded.values(), "mse_f": error.mean(), **terms}
    return Outcome(loss, values, fidelity.detach(), coded.y_hat.detach())


def warm_up(parts: Parts, batch: Batch) -> Outcome:
    """Stage 2: the diffusion branch learns to turn the frozen coded latent into one that D_m makes a picture of.

    For `lite` the latent should also be E_m's. The paper, and `sd21`, judge the picture alone.
    """
    with torch.no_grad():
        coded = parts.code(batch.x, batch.quality)
    x, clean, fidelity = _diffuse(parts, coded.y_hat, coded.z_hat, batch.quality)
    error = squared_error(x, batch.x)
    weight = lambdas(batch.quality)
    appearance, terms = _appearance(x, batch, batch.quality)
    loss = (weight * error * _balance(weight)).mean() + appearance
    values = {"mse": error.mean(), "mse_f": squared_error(fidelity, batch.x).mean(), **terms}
    if parts.latent_encoder is not None:
        with torch.no_grad():
            latent = parts.latent_encoder(batch.x).float()
        loss = loss + 0.05 * F.mse_loss(clean, latent)
    return Outcome(loss, values, x.detach(), coded.y_hat)


def annealing(parts: Parts, batch: Batch) -> Outcome:
    """Stage 3 and all later ones: rate, the errors of both pictures, and appearance, together."""
    coded = parts.code(batch.x, batch.quality)
    fidelity = parts.model.fidelity(coded.y_hat, batch.quality).float()
    x, _, _ = _diffuse(parts, coded.y_hat, coded.z_hat, batch.quality, fidelity)
    error, error_f = squared_error(x, batch.x), squared_error(fidelity, batch.x)
    weight = lambdas(batch.quality)
    distortion = weight * (ERROR * error + ERROR_FIDELITY * error_f)
    distortion = distortion + log_linear(batch.quality, *LATTICE) * lattice(x, batch.x)
    distortion = distortion + log_linear(batch.quality, *REPEATS) * repeats(x - fidelity.detach())
    distortion = distortion + log_linear(batch.quality, *COLOUR) * colour(x, batch.x)
    appearance, terms = _appearance(x, batch, batch.quality)
    loss = ((coded.bpp + distortion) * _balance(weight)).mean() + appearance
    values = {**coded.values(), "mse": error.mean(), "mse_f": error_f.mean(), **terms}
    if batch.critic is not None:
        values["deceit"] = generator_loss(batch.critic(x, coded.y_hat.detach()))
        loss = loss + ADVERSARIAL * values["deceit"]
    return Outcome(loss, values, x.detach(), coded.y_hat.detach())


def coarse(x: Tensor) -> Tensor:
    """Stands for the fidelity picture where nothing is coded: means of 16x16 pixels, interpolated to x (B, 3, H, W)."""
    return F.interpolate(F.avg_pool2d(x, 16), scale_factor=16, mode="bilinear")


def _diffuse(
    parts: Parts, y_hat: Tensor, z_hat: Tensor, quality: Tensor, fidelity: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The final picture, l_0 and x_f. It begins from x_f but does not train D_a, whose picture is to be faithful.

    `fidelity` is x_f where it is known; one that D_a learns from is computed again, as what trains y_hat alone.
    """
    model, origin = parts.model, _origin(y_hat.device)
    if fidelity is None or fidelity.requires_grad:
        frozen = {name: p.detach() for name, p in model.fidelity.named_parameters()}
        fidelity = functional_call(model.fidelity, frozen, (y_hat, quality)).float()
    content = model.content(z_hat)[..., : y_hat.shape[-2], : y_hat.shape[-1]]
    flow = Flow(model, y_hat, content, quality, x_f=fidelity, origin=origin).run()
    return flow.x, flow.l_0, fidelity


def _origin(device: torch.device) -> Origin:
    """A random place of the crop in a larger picture, in tokens: positions up to about 1,280 pixels are seen."""
    return torch.randint(0, 37, (2,), device=device).float()


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
        weight = batch.perception * log_linear(quality, *PERCEPTUAL) * balance
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
    perceptual: float = 0.0  # share of the weight of ST-LPIPS
    adversarial: bool = False


CODING = ("analysis", "hyper_analysis", "gain", "mean", "context", "scale_network", "prior", "fidelity")
DIFFUSION = ("content", "transform", "projection", "unet")
# The ViT is trained on: frozen after its few minutes in the denoiser's stage, its tokens made no difference.
DECODER = (*DIFFUSION, "vit", "latent_decoder")

# Above 3e-4 wide layers of the decoder diverge: Adam moves 1,440 inputs of a constant sign together.
STAGES: dict[str, Stage] = {
    "autoencoder": Stage(autoencoder, ("latent_encoder", "latent_decoder"), 3e-4, 0.1),
    "denoiser": Stage(denoiser, ("vit", "projection", "unet"), 3e-4, 0.1),
    "compression": Stage(compression, CODING, 1e-3, 0.2, (40.0, 40.0)),
    "warm-up": Stage(warm_up, DIFFUSION, 3e-4, 0.5, (40.0, 40.0)),
    # The paper freezes D_m, which is Stable Diffusion's. Ours is trained for minutes: on E_m's own latents it left a
    # squared error of 230, more than the coding did, so its training goes on.
    "annealing": Stage(annealing, (*CODING, *DIFFUSION, "latent_decoder"), 3e-4, 0.6, (40.0, 1.0)),
    "finish": Stage(annealing, (*CODING, *DECODER), 2.5e-4, 0.0, perceptual=1.0),
    # The coding is frozen: no bits should pay for perception, only for structure.
    "decoder": Stage(annealing, DECODER, 3e-4, 0.0, perceptual=2.0),
    # Only the decoder's side: a critic must not change what is sent.
    "adversarial": Stage(annealing, (*DIFFUSION, "latent_decoder"), 1e-4, 0.0, perceptual=2.0, adversarial=True),
}


class Step(NamedTuple):
    """A stage of `RECIPE`."""

    stage: str
    share: float  # of the whole length
    start: tuple[str, ...] = ()  # earlier stages whose parts it takes
    large: bool = False  # crops 1.5 times as wide and half as many, since later stages need more context


# All stages in the paper's order, with the shares that paid in lite's trainings (docs/training-log.md). The adversarial
# stage was not part of those.
RECIPE = (
    Step("autoencoder", 0.05),
    Step("compression", 0.30),
    Step("denoiser", 0.05, ("autoencoder",)),
    Step("warm-up", 0.05, ("autoencoder", "compression", "denoiser")),
    Step("annealing", 0.20, ("warm-up",), large=True),
    Step("finish", 0.10, ("annealing",), large=True),
    Step("decoder", 0.20, ("finish",), large=True),
    Step("adversarial", 0.05, ("decoder",), large=True),
)

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
        return stage
    if name in ("autoencoder", "denoiser"):
        raise TrainingError(f"stage {name!r} is not for {config.name}, whose parts begin from public checkpoints")
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
