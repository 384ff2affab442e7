"""What each part of sodec's decoder is worth: the same streams decoded with a part left out.

Every part should earn its place: the full decoder wins each row on the perceptual metric. A row that it does not
win is a finding, and is reported as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ..errors import UnsupportedPictureError
from .metrics import METRICS, Array, Metric
from .run import figure, markdown

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.flow import Flow

FULL = "full"
GUIDANCE = "no_guidance"
LABELS = {
    FULL: "full decoder",
    "fidelity": "fidelity picture alone",
    "no_unet": "UNet skipped (l_0 = l_t)",
    "mean_eps": "UNet's mean everywhere",
    GUIDANCE: "guidance zeroed",
    "other_guidance": "another picture's guidance",
    "no_noise": "noise zeroed",
    "no_content": "w zeroed",
}


@dataclass(frozen=True)
class Part:
    """Mean metrics of one way of decoding the streams of one quality."""

    quality: float
    variant: str  # a key of LABELS
    bpp: float
    metrics: dict[str, float | None]


def evaluate_parts(
    codec: Any,
    pictures: Mapping[str, Array],
    metrics: Sequence[Metric],
    qualities: Sequence[float] = (10, 50, 90),
    *,
    progress: bool = True,
) -> list[Part]:
    """The table's rows, for each quality every variant of `LABELS`, averaged over the pictures.

    Parameters
    ----------
    codec
        A `sodec.Codec`.
    pictures
        uint8 (H, W, 3) by name, each small enough for one tile; at least two, since each is also decoded with the
        guidance of the next.

    Raises
    ------
    UnsupportedPictureError
        There are fewer than two pictures, or one is of several tiles.
    """
    import torch

    if len(pictures) < 2:
        raise UnsupportedPictureError(f"another picture's guidance needs two pictures (got {len(pictures)})")
    variants = variants_of(codec.model)
    rows = []
    with tqdm(total=len(qualities) * len(variants) * len(pictures), unit="decoding", disable=not progress) as bar:
        for quality in qualities:
            streams = [codec.compress(picture, quality=quality) for picture in pictures.values()]
            sums: dict[str, list[dict[str, float | None]]] = {variant: [] for variant in variants}
            with torch.inference_mode():
                for number, picture in enumerate(pictures.values()):
                    latents = _latents(codec, streams[number])
                    others = _flow(codec, _latents(codec, streams[(number + 1) % len(streams)])).guidance
                    for variant, values in sums.items():
                        bar.set_postfix_str(f"quality {quality:g} {variant}")
                        with left_out(codec.model, variant, others):
                            flow = _flow(codec, latents)
                        decoded = flow.x_f if variant == "fidelity" else flow.x
                        cropped = _pixels(decoded, *picture.shape[:2])
                        values.append({metric.name: metric.function(picture, cropped) for metric in metrics})
                        bar.update()
            bpp = np.mean([8 * len(s) / p[..., 0].size for s, p in zip(streams, pictures.values(), strict=True)])
            rows += [Part(quality, variant, float(bpp), _means(values)) for variant, values in sums.items()]
    return rows


def parts_table(rows: Sequence[Part]) -> str:
    """Markdown. The last column is how much better the full decoder is on ST-LPIPS, in percent of the row's value."""
    names = list(rows[0].metrics) if rows else []
    head = ["decoder", "quality", "bpp", *(METRICS[name].label for name in names), "full better by"]
    body = []
    for row in rows:
        gain = advantage(rows, row)
        cells = [figure(row.metrics[name], METRICS[name].digits) for name in names]
        gained = "" if row.variant == FULL or gain is None else f"{gain:+.1f} %"
        body.append([LABELS[row.variant], f"{row.quality:g}", f"{row.bpp:.4f}", *cells, gained])
    return markdown(head, body)


def advantage(rows: Sequence[Part], row: Part, metric: str = "st_lpips") -> float | None:
    """By how many percent of the row's value the full decoder is better at the same quality; None if not measured."""
    full = next(other for other in rows if other.quality == row.quality and other.variant == FULL)
    ours, theirs = full.metrics.get(metric), row.metrics.get(metric)
    if ours is None or not theirs:
        return None
    gain = 100 * (ours - theirs) / abs(theirs)
    return gain if METRICS[metric].higher_is_better else -gain


def findings(rows: Sequence[Part]) -> list[str]:
    """A sentence for each row that the full decoder should win and does not.

    It should beat each on ST-LPIPS, and zeroed guidance on MS-SSIM too.
    """
    asked = [(row, "st_lpips") for row in rows] + [(row, "ms_ssim") for row in rows if row.variant == GUIDANCE]
    return [
        f"quality {row.quality:g}: the full decoder does not beat '{LABELS[row.variant]}' on {METRICS[metric].label}"
        f" ({gain:+.1f} %)"
        for row, metric in asked
        if row.variant != FULL and (gain := advantage(rows, row, metric)) is not None and gain <= 0
    ]


def _latents(codec: Any, data: bytes) -> tuple[Tensor, Tensor, Tensor]:
    """y_hat, z_hat and quality, for `SodecModel.decode`: y_hat comes in float32, the model may compute in less."""
    try:
        y_hat, z_hat, quality = codec.latents(data)
    except ValueError as error:
        raise UnsupportedPictureError(f"the parts can't be told apart: {error}") from None
    return y_hat.to(z_hat.dtype), z_hat, quality


def variants_of(model: Any) -> list[str]:
    """The keys of `LABELS` that this model has: `lite` has noise and no w, `sd21` w and no noise."""
    missing = {"no_noise"} if not model.config.noise else {"no_content"}
    return [variant for variant in LABELS if variant not in missing]


def _flow(codec: Any, latents: tuple[Tensor, Tensor, Tensor]) -> Flow:
    from ..models.flow import Flow

    y_hat, z_hat, quality = latents
    noise = codec.engine.noise(y_hat)
    return Flow(codec.model, y_hat, quality, w=codec.model.content_latent(z_hat, y_hat), noise=noise).run()


@contextmanager
def left_out(model: Any, variant: str, others: Any = None) -> Iterator[None]:
    """The model without one of its parts, a key of `LABELS`; `others` is another picture's guidance.

    Parts are replaced from outside: what is left out for a table is no business of the model.
    """
    denoise, guidance, picture = model.denoise, model.guidance, model.picture

    def mean_noise(l_t: Tensor, *inputs: Any) -> Tensor:
        kept = model.one_step[0] * l_t.float()
        mean: Tensor = (denoise(l_t, *inputs) - kept).mean((2, 3), keepdim=True)
        return kept + mean

    def without_content(y_hat: Tensor, quality: Tensor, w: Tensor) -> Tensor:
        l_t: Tensor = transform(y_hat, quality, w * 0)
        return l_t

    replaced: dict[str, dict[str, Callable[..., Any]]] = {
        "no_unet": {"denoise": lambda l_t, *_: l_t.float() * model.latent_scale},
        "mean_eps": {"denoise": mean_noise},
        GUIDANCE: {"guidance": lambda fidelity: _zeros(guidance(fidelity))},
        "other_guidance": {"guidance": lambda fidelity: _padded(others, guidance(fidelity))},
        "no_noise": {
            "denoise": lambda l_t, guide, noise: denoise(l_t, guide, noise * 0),
            "picture": lambda l_0, fidelity, guide, noise: picture(l_0, fidelity, guide, noise * 0),
        },
    }
    if variant == "no_content":
        transform = model.transform.forward
        model.transform.forward = without_content
        try:
            yield
        finally:
            del model.transform.forward
        return
    methods = replaced.get(variant, {})
    for name, function in methods.items():
        setattr(model, name, function)  # hides the method of that name
    try:
        yield
    finally:
        for name in methods:
            delattr(model, name)


def _zeros(guidance: Any) -> Any:
    """Guidance of zeros: a tensor of tokens, or the tensors that `lite` adds."""
    return guidance * 0 if hasattr(guidance, "shape") else type(guidance)(*(tensor * 0 for tensor in guidance))


def _padded(others: Any, own: Any) -> Any:
    """Another picture's guidance. Where it is of places, it is repeated or cut to the size of this picture's."""
    if hasattr(own, "shape"):
        return others

    def fitted(other: Tensor, like: Tensor) -> Tensor:
        repeats = [-(-wanted // size) for wanted, size in zip(like.shape[-2:], other.shape[-2:], strict=True)]
        return other.repeat(1, 1, *repeats)[..., : like.shape[-2], : like.shape[-1]]

    return type(own)(*map(fitted, others, own))


def _pixels(decoded: Tensor, height: int, width: int) -> Array:
    """(1, 3, 16 h, 16 w) in 0..1 to uint8 (H, W, 3) of the true size."""
    pixels = (decoded[0, :, :height, :width].float().clamp(0, 1) * 255).round()
    return pixels.byte().permute(1, 2, 0).cpu().numpy()


def _means(values: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    present = {name: [v for one in values if (v := one[name]) is not None] for name in values[0]}
    return {name: float(np.mean(found)) if found else None for name, found in present.items()}
