"""The three ratios behind "20 times faster", measured in one run (DESIGN: steps, engineering, what a user sees)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..codec import Codec
from ..models.ddim import ddim
from .clock import BUDGET, WARM_UPS, Timed, Timing, together
from .deadline import Deadline
from .rivals import ControlBranch, Denoise, controlled, guided, many_steps, rivals
from .stages import Dissection, Stage, without_kernels

STEPS = (4, 20, 50)
EMULATED = (
    "emulated cost: this model's UNet with its own weights, run as often as such a codec runs its UNet; "
    "its fidelity decoder and ViT are left out, since such a codec has none"
)
LEFT_OUT = ("fidelity", "ViT")
MULTI_STEP_SECONDS = 45.0  # of the whole part with (c), sd21 on an H100, estimated


@dataclass(frozen=True)
class Steps:
    """(a) The same decoder with more steps of the same UNet, over one step."""

    steps: int
    unet: Timing
    decode: Timing
    ratio_unet: float
    ratio_decode: float


@dataclass(frozen=True)
class Engineering:
    """(b) The same one-step model in a rival's hands, over ours."""

    rival: str
    end_to_end: Timing
    network: Timing
    ratio_end_to_end: float
    ratio_network: float


@dataclass(frozen=True)
class MultiStep:
    """(c) A multi-step codec's decoder over ours, bytes to pixels."""

    name: str
    steps: int
    emulated: str
    decode: Timing  # in the first rival of (b), which is how such codecs are published
    ratio: float
    decode_same_kernels: Timing  # with our dtype, memory and kernels: what is left is the steps
    ratio_same_kernels: float


@dataclass(frozen=True)
class Ratios:
    """Numerator over denominator throughout: above 1, ours is faster. Each is a quotient of medians of this run."""

    width: int
    height: int
    end_to_end: Timing  # ours, bytes in, pixels out
    network: Timing  # ours, symbols to floats
    decode_one_step: Timing  # ours, stage after stage: the denominator of (a)
    unet_one_step: Timing
    unet_share: float  # of decode_one_step
    steps: list[Steps]
    engineering: list[Engineering]
    multi_step: list[MultiStep]


def ratios(
    codec: Codec, data: bytes, width: int, height: int, budget: float = BUDGET, deadline: Deadline | None = None
) -> Ratios:
    """Measures all three for one stream. Everything takes turns, so that each quotient is of one stretch of time.

    Under a limit torch.compile is left out, and (c) where less than `MULTI_STEP_SECONDS` are left.
    """
    deadline = deadline or Deadline()
    kinds = KINDS if deadline.allows(MULTI_STEP_SECONDS) else ()
    ours = Dissection(codec, data)
    makers = rivals(codec, compiled=not deadline.limited)
    theirs = {name: Dissection(make(), data) for name, make in makers.items()}
    published, steady = next(iter(theirs.values())), Dissection(many_steps(codec), data)
    calls = {
        "end": _end_to_end(ours, data), "network": Timed(ours.network), "one": _chain(ours.stages),
        "unet": Timed(ours.stage("UNet").call),
    }  # fmt: skip
    for steps in STEPS:
        denoise = _denoiser(steady, steady.model.unet, steps)
        calls |= {f"{steps} unet": Timed(denoise), f"{steps} decode": _chain(_replaced(steady.stages, denoise))}
    for name, one in theirs.items():
        calls |= {f"{name} end": _plainly(_end_to_end(one, data)), f"{name} network": _plainly(Timed(one.network))}
    for kind in kinds:
        calls[f"{kind.name} plain"] = _plainly(_multi_step(kind, published))
        calls[f"{kind.name} ours"] = _multi_step(kind, steady)
    warm_ups = 1 if deadline.limited else WARM_UPS
    timings = together(list(calls.values()), codec.device, budget=budget, warm_ups=warm_ups, deadline=deadline)
    times = dict(zip(calls, timings, strict=True))

    def over(numerator: str, denominator: str) -> float:
        return times[numerator].median_s / times[denominator].median_s

    return Ratios(
        width, height, times["end"], times["network"], times["one"], times["unet"], over("unet", "one"),
        [Steps(n, times[f"{n} unet"], times[f"{n} decode"], over(f"{n} unet", "unet"), over(f"{n} decode", "one"))
         for n in STEPS],
        [Engineering(n, times[f"{n} end"], times[f"{n} network"], over(f"{n} end", "end"),
                     over(f"{n} network", "network")) for n in theirs],
        [MultiStep(k.name, k.steps, EMULATED, times[f"{k.name} plain"], over(f"{k.name} plain", "end"),
                   times[f"{k.name} ours"], over(f"{k.name} ours", "end")) for k in kinds],
    )  # fmt: skip


class Kind(NamedTuple):
    """A way in which published multi-step codecs run their UNet."""

    name: str
    steps: int
    change: Callable[[Any], Denoise]  # of what runs in a step


KINDS = (
    Kind("50 steps with a control branch", 50, lambda unet: controlled(unet, ControlBranch(unet))),  # as DiffEIC
    Kind("20 steps with classifier-free guidance", 20, guided),  # as PerCo
)


def _multi_step(kind: Kind, one: Dissection) -> Timed:
    denoise = _denoiser(one, kind.change(one.model.unet), kind.steps)
    return _chain([stage for stage in _replaced(one.stages, denoise) if stage.name not in LEFT_OUT])


def _denoiser(one: Dissection, unet: Denoise, steps: int) -> Callable[[], None]:
    """Every window's l_t to l_0 in so many steps."""
    model = one.model

    @torch.inference_mode()
    def denoise() -> None:
        for l_t, tokens in zip(one.l_t, one.tokens, strict=True):
            ddim(_told(unet, tokens), l_t, steps, model.alphas, model.config.timestep)

    return denoise


def _told(unet: Denoise, tokens: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda latent, timestep: unet(latent, timestep, tokens)


def _replaced(stages: list[Stage], unet: Callable[[], Any]) -> list[Stage]:
    return [Stage("UNet", unet) if stage.name == "UNet" else stage for stage in stages]


def _end_to_end(one: Dissection, data: bytes) -> Timed:
    return Timed(lambda: one.codec.decompress(data, output="numpy"), host=True)


def _plainly(one: Timed) -> Timed:
    def call() -> None:
        with without_kernels():
            one.call()

    return Timed(call, one.host)


def _chain(stages: list[Stage]) -> Timed:
    """The stages one after the other, the coder among them, as a user waits for them."""

    def decode() -> None:
        for stage in stages:
            stage.call()

    return Timed(decode, host=True)
