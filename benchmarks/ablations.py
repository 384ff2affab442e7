"""The paper's ablations in small: one change at a time, the same steps each, to a table on a folder of pictures.

python benchmarks/ablations.py --data shared/data/train --pictures kodak --out runs/ablations

A model of half lite's widths and of one rate: quality is taken out of its networks, so lambda alone steers, as in the
paper. Every variant starts from a high-rate (or, where it says so, other) coding of `--steps` steps and trains for as
many. What is done is kept in OUT, so a run goes on where it was ended. Rates are those of the noise that stands for
rounding, not of files.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sodec.evaluate.metrics import METRICS
from sodec.models import LITE, ModelConfig
from sodec.models.blocks import PixelDecoder
from sodec.models.coding import QualityGain, QualityShift
from sodec.models.ddim import ddim
from sodec.train import stages
from sodec.train.data import Crops, load_pictures
from sodec.train.losses import make_perceptual
from sodec.train.optimise import learning_rate
from sodec.train.parts import Parts
from sodec.train.stages import CODING, DECODER, STAGES, Batch, Stage
from sodec.train.state import _fast_bfloat16

SMALL = dataclasses.replace(
    LITE, name="small", y_channels=96, z_channels=48, analysis=(24, 48, 96), hyper=64, content=32, context=64,
    latent=32, transform=96, fidelity=(96, 48, 24), fidelity_blocks=(2, 1, 1), vit=96, vit_depth=2,
    tokens=96, unet=(96, 96, 96), unet_blocks=3, decoder=(96, 64, 32), decoder_blocks=(0, 1, 1),
)  # fmt: skip
HIGH, TARGET, LOW = 80.0, 20.0, 1.0  # qualities whose lambda is meant: lambdas 48 and 0.29 times the target's
JOINT = (*CODING, *DECODER)
STEP_COUNTS = (1, 4, 20, 50)
Price = Callable[[float], float]  # progress in 0..1 to the quality whose lambda is used


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row: how lambda goes, what learns, and what is put in the place of a part."""

    group: str
    name: str
    price: Price = lambda progress: HIGH + (TARGET - HIGH) * min(1.0, 2 * progress)
    start: float = HIGH  # quality that the coding was trained for
    trains: tuple[str, ...] = JOINT
    config: ModelConfig = SMALL
    change: Callable[[Parts], Any] | None = None  # a context manager, in training and in judging


def at_target(progress: float) -> float:
    return TARGET


VARIANTS = (
    Variant("all", "as lite is trained"),
    Variant("rate", "coding frozen at the target's rate", at_target, TARGET, DECODER),
    Variant("rate", "joint, at the target's lambda throughout", at_target, TARGET),
    Variant("rate", "from a low rate up", lambda progress: LOW + (TARGET - LOW) * min(1.0, 2 * progress), LOW),
    Variant("guidance", "none: tokens of zeros", change=lambda parts: no_tokens(parts)),
    Variant("guidance", "tokens of the hyperprior", change=lambda parts: hyperprior_tokens(parts)),
    Variant("alignment", "none: D_a learns by the final picture", change=lambda parts: no_alignment(parts)),
    Variant("alignment", "MSE, and by the final picture", change=lambda parts: shared_fidelity(parts)),
    Variant("picture", "of the latent alone, as the paper's", change=lambda parts: latent_alone(parts)),
    Variant("coding", "mean of z alone", config=dataclasses.replace(SMALL, context=0)),
)


def no_tokens(parts: Parts) -> Any:
    model = parts.model
    guidance = model.guidance
    return mock.patch.object(model, "guidance", lambda *inputs: torch.zeros_like(guidance(*inputs)))


class HyperpriorTokens(nn.Module):
    """In the place of the ViT: w, halved in size, in its width. w is caught where it is computed."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        config = parts.model.config
        self.embed = nn.Linear(config.content, config.vit)
        self.w = torch.empty(0)

    def forward(self, picture: Tensor, origin: tuple[float, float]) -> Tensor:
        return self.embed(F.avg_pool2d(self.w, 2).flatten(2).transpose(1, 2))


@contextmanager
def hyperprior_tokens(parts: Parts) -> Iterator[None]:
    tokens = parts.model.vit = HyperpriorTokens(parts)
    hook = parts.model.content.register_forward_hook(lambda _, __, w: setattr(tokens, "w", w))
    yield
    hook.remove()


def shared_fidelity(parts: Parts) -> Any:
    """The final picture's error reaches D_a's weights."""
    return mock.patch.object(stages, "functional_call", lambda module, _, inputs: module(*inputs))


@contextmanager
def no_alignment(parts: Parts) -> Iterator[None]:
    with shared_fidelity(parts), mock.patch.object(stages, "ERROR_FIDELITY", 0.0):
        yield


def latent_alone(parts: Parts) -> Any:
    model: Any = parts.model
    return mock.patch.object(model, "picture", lambda l_0, _: PixelDecoder.forward(model.latent_decoder, l_0))


def one_rate(parts: Parts) -> Parts:
    """Takes quality out of the networks: they get the middle one, whatever the loss is priced at."""
    for module in parts.modules():
        if isinstance(module, (QualityGain, QualityShift)):
            forward = module.forward
            module.forward = functools.partial(lambda f, q: f(torch.full_like(q, 50.0)), forward)  # type: ignore[method-assign]
    return parts


class Study:
    """What all variants share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.steps, self.batch, self.size = options.out, options.steps, options.batch, options.size
        self.pictures = load_pictures(options.data, options.cache)
        self.kodak = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(options.pictures.glob("*.png"))]
        self.perceptual = make_perceptual(2, 64)
        self.autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=_fast_bfloat16())

    def learn(self, parts: Parts, plan: Stage, price: Price) -> None:
        """`steps` steps of a stage, each variant on the same crops."""
        torch.manual_seed(0)
        crops = Crops(self.pictures, 0)
        parameters = parts.train_only(name for name in plan.trains if name in parts.names())
        optimizer = torch.optim.Adam(parameters, plan.learning_rate, (0.9, 0.99), fused=True)
        for step in range(self.steps):
            progress = step / self.steps
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, step, progress)
            x, quality = crops.batch(self.batch, self.size).float() / 255, torch.full((self.batch,), price(progress))
            batch = Batch(x, quality, self.perceptual if plan.perceptual else None)
            with self.autocast():
                loss = plan.loss(parts, batch).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

    def kept(self, name: str, make: Callable[[], Parts], config: ModelConfig) -> Parts:
        """Parts that are made once."""
        path = self.out / f"{name}.pt"
        if not path.exists():
            torch.save(make().state_dict(), path)
        parts = one_rate(Parts(config))
        parts.load_state_dict(torch.load(path, weights_only=True))
        return parts

    def coding(self, quality: float, config: ModelConfig) -> Parts:
        """The compression stage at one lambda."""

        def make() -> Parts:
            torch.manual_seed(0)
            parts = one_rate(Parts(config))
            self.learn(parts, STAGES["compression"], lambda _: quality)
            return parts

        return self.kept(f"coding-{quality:g}-{config.context}", make, config)

    def row(self, variant: Variant) -> dict[str, Any]:
        torch.manual_seed(0)
        parts = self.coding(variant.start, variant.config)
        with ExitStack() as stack:
            if variant.change is not None:
                stack.enter_context(variant.change(parts))
            plan = dataclasses.replace(STAGES["finish"], trains=variant.trains, learning_rate=1e-3, final=0.05)
            self.learn(parts, plan, variant.price)
            return {"group": variant.group, "name": variant.name, **self.judge(parts)}

    @torch.no_grad()
    def judge(self, parts: Parts) -> dict[str, float]:
        """Means over the pictures; `x_f` is the fidelity picture's."""
        at, rows = torch.tensor([TARGET]), []
        for picture in self.kodak:
            x = _tensor(picture)
            with self.autocast():
                coded = parts.code(x, at)
                pictures = {
                    "": parts.model.decode(coded.y_hat, coded.z_hat, at), "x_f ": parts.model.fidelity(coded.y_hat, at)
                }  # fmt: skip
            rows.append({"bpp": float(coded.bpp), **_scores(picture, pictures)})
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def steps_of_ddim(self) -> list[dict[str, Any]]:
        """The denoiser of stage 0 from pure noise, guided by the original's tokens: what more steps give, and cost."""

        def make() -> Parts:
            torch.manual_seed(0)
            parts = one_rate(Parts(SMALL))
            self.learn(parts, STAGES["autoencoder"], lambda _: TARGET)
            self.learn(parts, STAGES["denoiser"], lambda _: TARGET)
            return parts

        parts, rows = self.kept("denoiser", make, SMALL), []
        for count in STEP_COUNTS:
            torch.manual_seed(0)
            found, seconds = [], 0.0
            for picture in self.kodak:
                x = _tensor(picture)
                with torch.no_grad(), self.autocast():
                    tokens = parts.model.guidance(x)
                    noise = torch.randn(1, SMALL.latent, x.shape[-2] // 16, x.shape[-1] // 16)
                    begun = time.perf_counter()
                    latent = ddim(functools.partial(_guided, parts, tokens), noise, count, parts.model.alphas)
                    decoded = parts.model.picture(latent, stages.coarse(x))
                    seconds += time.perf_counter() - begun
                found.append(_scores(picture, {"": decoded, "x_f ": stages.coarse(x)}))
            means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
            rows.append({"group": "steps", "name": str(count), "seconds": seconds / len(self.kodak), **means})
        return rows


def _guided(parts: Parts, tokens: Tensor, latent: Tensor, step: Tensor) -> Tensor:
    return parts.model.unet(latent, step, tokens)


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _scores(picture: np.ndarray, decoded: dict[str, Tensor]) -> dict[str, float]:
    scores = {}
    for prefix, x in decoded.items():
        pixels = (x[0].float().clamp(0, 1) * 255).round().permute(1, 2, 0).to(torch.uint8).numpy()
        for name in ("ms_ssim", "st_lpips"):
            value = METRICS[name].function(picture, pixels)
            assert value is not None
            scores[prefix + name] = value
    return scores


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = ("group", "name", "bpp", "ms_ssim", "st_lpips", "x_f ms_ssim", "x_f st_lpips", "seconds")
    cells = [[f"{v:.4f}" if isinstance(v := row.get(name, ""), float) else str(v) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(names), ["---"] * len(names), *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pictures to train on")
    parser.add_argument("--pictures", type=Path, required=True, help="PNG files to judge on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="of decoded pixels; OUT/pixels by default")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.cache = options.cache or options.out / "pixels"
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    study, path = Study(options), options.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for variant in VARIANTS:
        if not any((row["group"], row["name"]) == (variant.group, variant.name) for row in rows):
            rows.append(study.row(variant))
            path.write_text(json.dumps(rows, indent=1))
            print(table(rows[-1:]), flush=True)
    if not any(row["group"] == "steps" for row in rows):
        rows += study.steps_of_ddim()
        path.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
