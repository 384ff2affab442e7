"""The three ratios behind "20 times faster", measured in one run: steps, engineering, and what a user sees.

python benchmarks/claim.py --json lite.json

Takes the options of `sodec bench` and measures the same, and at the first of the sizes the ratios too. docs/latency.md
explains them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import torch
from rivals import ControlBranch, Denoise, called, controlled, guided, many_steps, rivals
from torch import Tensor

from sodec.bench.clock import BUDGET, WARM_UPS, Deadline, Timed, Timing, together
from sodec.bench.stages import Dissection, Stage, without_kernels
from sodec.cli.bench import bench_command
from sodec.codec import Codec
from sodec.models.ddim import ddim
from sodec.models.flow import Flow

STEPS = (4, 20, 50)
EMULATED = (
    "emulated cost: this model's UNet with its own weights, run as often as such a codec runs its UNet; "
    "its fidelity decoder and guidance are left out, since such a codec has none"
)
LEFT_OUT = ("fidelity", "guidance")
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
    """(b) The same one-step model in plain PyTorch or diffusers, over ours."""

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
    decode: Timing  # by the first rival of (b), which is how such codecs are published
    ratio: float
    decode_same_kernels: Timing  # with our dtype, memory and kernels: only the steps differ
    ratio_same_kernels: float


@dataclass(frozen=True)
class Ratios:
    """Each ratio is a rival's median over ours, of the same run: above 1, ours is faster."""

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
    """Measures all three for one stream. All calls take turns, so that a slow minute slows all of them.

    With a deadline torch.compile is left out, and so is (c) if less than `MULTI_STEP_SECONDS` are left.
    """
    deadline = deadline or Deadline()
    kinds = KINDS if deadline.allows(MULTI_STEP_SECONDS) else ()
    ours = Dissection(codec, data)
    makers = rivals(codec, compiled=not deadline.limited)
    theirs = {name: Dissection(make(), data) for name, make in makers.items()}
    published, multi_step = next(iter(theirs.values())), Dissection(many_steps(codec), data)
    calls = {
        "end": _end_to_end(ours, data), "network": Timed(ours.network), "one": _chain(ours.stages),
        "unet": Timed(ours.stage("UNet").call),
    }  # fmt: skip
    for steps in STEPS:
        denoise = _denoiser(multi_step, called(multi_step.model.unet), steps)
        calls |= {f"{steps} unet": Timed(denoise), f"{steps} decode": _chain(_replaced(multi_step.stages, denoise))}
    for name, rival in theirs.items():
        calls |= {f"{name} end": _plainly(_end_to_end(rival, data)), f"{name} network": _plainly(Timed(rival.network))}
    for kind in kinds:
        calls[f"{kind.name} plain"] = _plainly(_multi_step(kind, published))
        calls[f"{kind.name} ours"] = _multi_step(kind, multi_step)
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


def _multi_step(kind: Kind, decoding: Dissection) -> Timed:
    denoise = _denoiser(decoding, kind.change(decoding.model.unet), kind.steps)
    return _chain([stage for stage in _replaced(decoding.stages, denoise) if stage.name not in LEFT_OUT])


def _denoiser(decoding: Dissection, unet: Denoise, steps: int) -> Callable[[], None]:
    """A call that takes every window's l_t to l_0 in so many steps."""
    model = decoding.model

    @torch.inference_mode()
    def denoise() -> None:
        for flow in decoding.flows:
            ddim(_guided_by(unet, flow), flow.l_t, steps, model.alphas, model.config.timestep)

    return denoise


def _guided_by(unet: Denoise, flow: Flow) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda latent, timestep: unet(latent, timestep, flow.guidance, flow.noise)


def _replaced(stages: list[Stage], unet: Callable[[], Any]) -> list[Stage]:
    return [Stage("UNet", unet) if stage.name == "UNet" else stage for stage in stages]


def _end_to_end(decoding: Dissection, data: bytes) -> Timed:
    return Timed(lambda: decoding.codec.decompress(data, output="numpy"), host=True)


def _plainly(timed: Timed) -> Timed:
    """The same call without our kernels."""

    def call() -> None:
        with without_kernels():
            timed.call()

    return Timed(call, timed.host)


def _chain(stages: list[Stage]) -> Timed:
    """All stages one after the other, including the coder."""

    def decode() -> None:
        for stage in stages:
            stage.call()

    return Timed(decode, host=True)


main = click.Command(
    "claim.py",
    params=bench_command.params,
    callback=functools.partial(bench_command.callback, compare=ratios),  # type: ignore[arg-type]
    help=__doc__,
)

if __name__ == "__main__":
    main()
