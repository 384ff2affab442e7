"""The stages in the paper's order, each a function: what is penalised; beside it: what is trained.

Every loss is divided by sqrt(lambda / LAMBDA_MIDDLE), so that all qualities push equally hard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..errors import TrainingError
from ..models import ModelConfig
from ..models.blocks import Origin
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
PERCEPTUAL = (0.16, 75.0)  # of ST-LPIPS; more raises the rate of every quality
LATTICE = (0.006, 0.33)  # of the squared error of phases
REPEATS = (6e-3, 0.25)  # of patterns in what D_m adds
COLOUR = (4e-4, 0.018)  # of that of colour, which it hardly sees
TINT = (5e-4, 0.02)  # of that of the mean colour of 16x16 pixels
ERROR, ERROR_FIDELITY = 0.12, 0.12  # shares of squared error, of the final and of the fidelity picture
ERROR_ALONE = 0.2  # share where there is one picture and no perceptual term
ADVERSARIAL = 0.02  # weight of the critic's term

Perceptual = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Batch:
    """What a loss reads: pictures (B, 3, H, W) in 0..1, quality (B,), and the terms of other networks where due.

    `decoded` is left by the loss: the pictures it judged and y_hat (or None), for the critic and for looking at.
    """

    x: Tensor
    quality: Tensor
    perceptual: Perceptual | None = None
    perception: float = 1.0  # the stage's share of its weight
    critic: Perceptual | None = None
    decoded: tuple[Tensor, Tensor | None] | None = None


@dataclass(frozen=True)
class Stage:
    loss: Callable[[Parts, Batch], tuple[Tensor, dict[str, Tensor]]]
    trains: tuple[str, ...]
    learning_rate: float
    final: float  # of the learning rate, at the end of the cosine
    lowest: tuple[float, float] = (1.0, 1.0)  # lowest quality drawn at the start and from half of the stage on
    perceptual: float = 0.0  # share of the weight of ST-LPIPS
    adversarial: bool = False


def lowest_quality(plan: Stage, progress: float) -> float:
    """Rate annealing: the lowest quality drawn falls in a line from plan.lowest[0] to [1] at half of the stage.

    Lambda, the price of a bit against error, is log-linear in quality (`losses.lambdas`), so it rises as the paper has
    it, while one model keeps serving the high rates that it began with.
    """
    first, last = plan.lowest
    return first + (last - first) * min(1.0, 2 * progress)


def autoencoder(parts: Parts, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 0: E_m and D_m; a little noise and a pull to zero keep the latent smooth, near unit variance."""
    assert parts.latent_encoder is not None
    latent = parts.latent_encoder(batch.x).float()
    x = parts.model.picture(latent + 0.1 * torch.randn_like(latent), coarse(batch.x))
    error = squared_error(x, batch.x)
    batch.decoded = (x.detach(), None)
    loss = LAMBDA_MIDDLE * error.mean() + 0.005 * latent.square().mean()
    values = {"mse": error.mean(), "latent": latent.std()}
    return loss + _appearance(x, batch, torch.full_like(batch.quality, QUALITY_MIDDLE), values), values


def denoiser(parts: Parts, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 0: the noise of a noisy latent at every t, guided by tokens of the original picture."""
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
    return loss, {"eps": loss}


def compression(parts: Parts, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 1: rate, and the fidelity picture's error and structure."""
    coded = parts.code(batch.x, batch.quality)
    fidelity = parts.model.fidelity(coded.y_hat, batch.quality)
    error = squared_error(fidelity, batch.x)
    batch.decoded = (fidelity.detach(), coded.y_hat.detach())
    weight = lambdas(batch.quality)
    loss = ((coded.bpp + ERROR_ALONE * weight * error) * _balance(weight)).mean()
    values = {**coded.values(), "mse_f": error.mean()}
    return loss + _appearance(fidelity, batch, batch.quality, values), values


def warm_up(parts: Parts, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2: the diffusion branch learns to turn the frozen coded latent into one that D_m makes a picture of.

    Of `lite` it should be E_m's too; the paper, and `sd21`, judge the picture alone.
    """
    with torch.no_grad():
        coded = parts.code(batch.x, batch.quality)
    x, clean, fidelity = _diffuse(parts, coded.y_hat, coded.z_hat, batch.quality)
    batch.decoded = (x.detach(), coded.y_hat)
    error = squared_error(x, batch.x)
    weight = lambdas(batch.quality)
    loss = (weight * error * _balance(weight)).mean()
    values = {"mse": error.mean(), "mse_f": squared_error(fidelity, batch.x).mean()}
    loss = loss + _appearance(x, batch, batch.quality, values)
    if parts.latent_encoder is not None:
        with torch.no_grad():
            latent = parts.latent_encoder(batch.x).float()
        loss = loss + 0.05 * F.mse_loss(clean, latent)
    return loss, values


def annealing(parts: Parts, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 3: rate, both pictures' errors and perception, together; the range of qualities widens downwards."""
    coded = parts.code(batch.x, batch.quality)
    fidelity = parts.model.fidelity(coded.y_hat, batch.quality).float()
    x, _, _ = _diffuse(parts, coded.y_hat, coded.z_hat, batch.quality, fidelity)
    batch.decoded = (x.detach(), coded.y_hat.detach())
    error, error_f = squared_error(x, batch.x), squared_error(fidelity, batch.x)
    weight = lambdas(batch.quality)
    distortion = weight * (ERROR * error + ERROR_FIDELITY * error_f)
    distortion = distortion + log_linear(batch.quality, *LATTICE) * lattice(x, batch.x)
    distortion = distortion + log_linear(batch.quality, *REPEATS) * repeats(x - fidelity.detach())
    distortion = distortion + log_linear(batch.quality, *COLOUR) * colour(x, batch.x)
    values = {**coded.values(), "mse": error.mean(), "mse_f": error_f.mean()}
    loss = ((coded.bpp + distortion) * _balance(weight)).mean() + _appearance(x, batch, batch.quality, values)
    if batch.critic is not None:
        values["deceit"] = generator_loss(batch.critic(x, coded.y_hat.detach()))
        loss = loss + ADVERSARIAL * values["deceit"]
    return loss, values


CODING = ("analysis", "hyper_analysis", "gain", "mean", "context", "scale_network", "prior", "fidelity")
DIFFUSION = ("content", "transform", "projection", "unet")
# The ViT learns on as well: frozen after its few minutes in the denoiser's stage, its tokens made no difference.
DECODER = (*DIFFUSION, "vit", "latent_decoder")

# Beyond 3e-4 wide layers of the decoder run away: Adam moves 1,440 inputs of a constant sign together.
STAGES: dict[str, Stage] = {
    "autoencoder": Stage(autoencoder, ("latent_encoder", "latent_decoder"), 3e-4, 0.1),
    "denoiser": Stage(denoiser, ("vit", "projection", "unet"), 3e-4, 0.1),
    "compression": Stage(compression, CODING, 1e-3, 0.2, (40.0, 40.0)),
    "warm-up": Stage(warm_up, DIFFUSION, 3e-4, 0.5, (40.0, 40.0)),
    # The paper freezes D_m, Stable Diffusion's. Ours is trained for minutes: on E_m's own latents it left a squared
    # error of 230, more than the coding did, so it learns on.
    "annealing": Stage(annealing, (*CODING, *DIFFUSION, "latent_decoder"), 3e-4, 0.6, (40.0, 1.0)),
    "finish": Stage(annealing, (*CODING, *DECODER), 2.5e-4, 0.0, perceptual=1.0),
    # With the coding as it is no bits pay for perception, only structure.
    "decoder": Stage(annealing, DECODER, 3e-4, 0.0, perceptual=2.0),
    # the decoder's side alone: a critic must not change what is sent
    "adversarial": Stage(annealing, (*DIFFUSION, "latent_decoder"), 1e-4, 0.0, perceptual=2.0, adversarial=True),
}


PUBLIC = ("vit", "latent_decoder")  # parts of `sd21` that stay as they were published
PUBLIC_RATE = 0.1  # of lite's learning rates: 1e-4 for the coding, as HiFiC's, and 3e-5 for the UNet; OSEDiff's is 5e-5


def plan_of(stage: str, config: ModelConfig) -> Stage:
    """The stage of this name as `config` has it. `TrainingError` where there is no such stage."""
    if stage not in STAGES:
        raise TrainingError(f"unknown stage {stage!r}; there are {', '.join(STAGES)}")
    plan = STAGES[stage]
    if config.sizes is None:
        return plan
    if stage in ("autoencoder", "denoiser"):
        raise TrainingError(f"stage {stage!r} is not for {config.name}, whose parts begin from public checkpoints")
    missing = () if config.context else ("context",)
    trains = tuple(name for name in plan.trains if name not in (*PUBLIC, *missing))
    return replace(plan, trains=trains, learning_rate=plan.learning_rate * PUBLIC_RATE)


def replanned(plan: Stage, learning_rate: float | None, final: float | None, lowest: float | None) -> Stage:
    """The stage with what is given in place of its own."""
    changes: dict[str, Any] = {"learning_rate": learning_rate, "final": final}
    changes["lowest"] = None if lowest is None else (lowest, min(lowest, plan.lowest[1]))
    return replace(plan, **{name: value for name, value in changes.items() if value is not None})


def coarse(x: Tensor) -> Tensor:
    """What stands for the fidelity picture where nothing is coded: means of 16x16 pixels, (B, 3, H, W) as x."""
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
    tokens = model.guidance(fidelity, origin)
    clean = model.denoise(model.transform(y_hat, content, quality), tokens, origin)
    return model.picture(clean, fidelity), clean, fidelity


def _origin(device: torch.device) -> Origin:
    """Where the crop lies in a larger picture, in tokens: positions of pictures to about 1,280 pixels are seen."""
    return torch.randint(0, 37, (2,), device=device).float()


def _balance(weight: Tensor) -> Tensor:
    return (LAMBDA_MIDDLE / weight).sqrt()


def _appearance(x: Tensor, batch: Batch, quality: Tensor, values: dict[str, Tensor]) -> Tensor:
    """The terms that see more than squared error does, weighted for the quality and balanced as the rest.

    Their own values, unweighted, go into `values`, for the log.
    """
    balance = _balance(lambdas(quality))
    distance = structure(x, batch.x)
    values["structure"] = distance.mean()
    off = tint(x, batch.x)
    values["tint"] = off.mean()
    loss = ((log_linear(quality, *STRUCTURE) * distance + log_linear(quality, *TINT) * off) * balance).mean()
    if batch.perceptual is not None:
        distance = batch.perceptual(x, batch.x)  # of the first few pictures
        values["perceptual"] = distance.mean()
        weight = batch.perception * log_linear(quality, *PERCEPTUAL) * balance
        loss = loss + (weight[: len(distance)] * distance).mean()
    return loss
