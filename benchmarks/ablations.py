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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sodec.evaluate.metrics import METRICS
from sodec.evaluate.parts import left_out
from sodec.models import LITE, ModelConfig
from sodec.models.coding import QualityGain, QualityShift
from sodec.models.noise import PIXELS, place_noise
from sodec.train import stages
from sodec.train.data import Crops, load_pictures
from sodec.train.losses import make_perceptual
from sodec.train.optimise import learning_rate
from sodec.train.parts import Parts
from sodec.train.stages import CODING, DECODER, STAGES, Batch, Stage
from sodec.train.state import _fast_bfloat16

SMALL = dataclasses.replace(
    LITE, name="small", y_channels=96, z_channels=48, analysis=(24, 48, 96), hyper=64, context=64,
    latent=16, transform=96, fidelity=(96, 48, 24), fidelity_blocks=(2, 1, 1), unet=(64, 96, 96, 96),
    unet_blocks=(1, 2), decoder=(32,),
)  # fmt: skip
HIGH, TARGET, LOW = 80.0, 20.0, 1.0  # qualities whose lambda is meant: lambdas 48 and 0.29 times the target's
JOINT = (*CODING, *DECODER)
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
    Variant("guidance", "none", change=lambda parts: left_out(parts.model, "no_guidance")),
    Variant("noise", "none", change=lambda parts: left_out(parts.model, "no_noise")),
    Variant("alignment", "none: D_a learns by the final picture", change=lambda parts: no_alignment(parts)),
    Variant("alignment", "MSE, and by the final picture", change=lambda parts: shared_fidelity(parts)),
    Variant("picture", "of the latent alone, as the paper's", change=lambda parts: latent_alone(parts)),
    Variant("coding", "mean of z alone", config=dataclasses.replace(SMALL, context=0)),
)


def shared_fidelity(parts: Parts) -> Any:
    """The final picture's error reaches D_a's weights."""
    return mock.patch.object(stages, "functional_call", lambda module, _, inputs: module(*inputs))


@contextmanager
def no_alignment(parts: Parts) -> Iterator[None]:
    with shared_fidelity(parts), mock.patch.object(stages, "ERROR_FIDELITY", 0.0):
        yield


def latent_alone(parts: Parts) -> Any:
    model: Any = parts.model
    return mock.patch.object(
        model, "picture", lambda l_0, _, guidance, noise: model.latent_decoder(l_0, guidance.at_4, noise)
    )


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
        parts.eval()
        at, rows = torch.tensor([TARGET]), []
        for picture in self.kodak:
            x = _tensor(picture)
            with self.autocast():
                coded = parts.code(x, at)
                pictures = {
                    "": parts.model.decode(coded.y_hat, coded.z_hat, at, _noise(parts, x)),
                    "x_f ": parts.model.fidelity(coded.y_hat, at).picture,
                }  # fmt: skip
            rows.append({"bpp": float(coded.bpp), **_scores(picture, pictures)})
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _noise(parts: Parts, x: Tensor) -> Tensor:
    return torch.from_numpy(place_noise(parts.model.config.noise, x.shape[-2] // PIXELS, x.shape[-1] // PIXELS))[None]


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
    names = ("group", "name", "bpp", "ms_ssim", "st_lpips", "x_f ms_ssim", "x_f st_lpips")
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
    print(table(rows))


if __name__ == "__main__":
    main()
