"""The sizes of a model: one dataclass, stored with the weights, from which every part is built."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError

MAX_WIDTH, MAX_DEPTH, MAX_LEVELS = 8192, 64, 8
# What a field may be, both ends included, where that is not a width of 1 to MAX_WIDTH or a depth of 0 to MAX_DEPTH.
RANGES: dict[str, tuple[float, float]] = {
    "context": (0, MAX_WIDTH), "content": (0, MAX_WIDTH), "noise": (0, MAX_WIDTH),
    "vit_patch": (8, 64), "vit_grid": (1, 256), "guidance_tokens": (1, 4096),
    "quality_anchors": (2, 199), "scale_count": (2, 64), "scale_min": (1e-3, 1e3), "scale_max": (1e-3, 1e3),
    "beta_start": (1e-6, 0.5), "beta_end": (1e-6, 0.5), "timestep": (0, 999), "latent_scale": (1e-3, 1e3),
}  # fmt: skip
DEPTHS = ("blocks", "depth")  # how the names of depths end


@dataclass(frozen=True)
class PublicSizes:
    """What `sd21` has beside the sizes of `ModelConfig`: layouts of public checkpoints, and what they are joined by."""

    transform_blocks: int = 4  # of T_s, at 1/16 and again at 1/8
    vit: int = 768
    vit_depth: int = 12
    vit_patch: int = 14  # pixels of the resized fidelity picture; each patch covers 16 of the picture
    tokens: int = 1024  # D of the guidance tokens
    unet_blocks: int = 2  # residual blocks of a level on the way down; one more on the way up
    unet_attention: tuple[bool, ...] = (True, True, True, False)  # levels with transformers; the middle has one
    unet_head: int = 64  # channels
    groups: int = 32  # of every group norm
    vit_head: int = 64
    vit_grid: int = 37  # side of the grid that the ViT's positions were trained on
    guidance_tokens: int = 77  # however large the picture
    latent_scale: float = 0.18215  # the UNet's latent over the autoencoder's

    def __post_init__(self) -> None:
        _check_fields(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PublicSizes:
        """The inverse of `dataclasses.asdict`, as `ModelConfig.from_dict`."""
        return cls(**_plain(cls, values))


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of every part. Channels unless said otherwise; "1/16" is a 16th of the picture's side.

    A field of another type or out of its range is a `WeightsError` that names it, before anything is built.

    Lists of widths and blocks go in the order of the data. With `sizes` the parts are those of `sd21`, whose decoders
    end at the picture.
    """

    name: str = "lite"
    y_channels: int = 128  # coded latent, at 1/16
    z_channels: int = 64  # hyper latent, at 1/64
    analysis: tuple[int, ...] = (48, 96, 160)  # widths of E at 1/4, 1/8, 1/16
    hyper: int = 96  # first width of the branches that read z; 64 after each upsampling
    content: int = 0  # w, the second synthesis of z, which only `sd21` has
    context: int = 128  # width of what predicts half of y from the other; 0 is none
    latent: int = 32  # channels of the diffusion latent, at 1/8
    noise: int = 4  # channels of noise at 1/4; 0 is none
    transform: int = 160  # T_s
    fidelity: tuple[int, ...] = (160, 80, 40)  # widths of D_a at 1/16, 1/8, 1/4
    fidelity_blocks: tuple[int, ...] = (4, 2, 2)
    unet: tuple[int, ...] = (128, 160, 192, 192)  # widths at 1/8, 1/16, 1/32, 1/64
    unet_blocks: tuple[int, ...] = (2, 4)  # of lite, on the way up at 1/8 and 1/16
    decoder: tuple[int, ...] = (64,)  # widths of D_m, of lite at 1/4
    decoder_blocks: tuple[int, ...] = (1,)
    quality_anchors: int = 5  # learnt gain vectors; qualities between are log-linear
    scale_min: float = 0.12  # the table of scales: log-uniform, index 0 is not coded (SKIP)
    scale_max: float = 64.0
    scale_count: int = 64
    beta_start: float = 0.00085  # scaled-linear schedule of 1,000 steps, as in Stable Diffusion;
    beta_end: float = 0.006  # its end is milder (SD: 0.012), so 1/sqrt(a_999) is 4.6 and not 14.6: bf16 can bear it
    timestep: int = 999
    sizes: PublicSizes | None = None  # of `sd21`; None is lite's architecture

    def __post_init__(self) -> None:
        _check_fields(self)
        for low, high in (("scale_min", "scale_max"), ("beta_start", "beta_end")):
            if getattr(self, low) >= getattr(self, high):
                raise WeightsError(f"{low} must be below {high} (got {getattr(self, low)} and {getattr(self, high)})")

    @property
    def widest(self) -> int:
        """The largest of all widths."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self) if _is_width(field.name))
        return max(max(value) if isinstance(value, tuple) else value for value in values if not isinstance(value, str))

    @property
    def deepest(self) -> int:
        """The largest of all depths."""
        return max(self._depths)

    @property
    def blocks(self) -> int:
        """The number of blocks, as all depths together."""
        return sum(self._depths)

    @property
    def _depths(self) -> list[int]:
        values = (getattr(self, field.name) for field in dataclasses.fields(self) if field.name.endswith(DEPTHS))
        return [depth for value in values for depth in (value if isinstance(value, tuple) else (value,))]

    @property
    def public(self) -> PublicSizes:
        """The sizes that only `sd21` has."""
        assert self.sizes is not None
        return self.sizes

    @property
    def scale_step(self) -> float:
        """Ratio between neighbouring scales, as a natural logarithm."""
        return math.log(self.scale_max / self.scale_min) / (self.scale_count - 1)

    @property
    def scales(self) -> list[float]:
        """The table of scales that the frequency tables are made for."""
        return [self.scale_min * math.exp(self.scale_step * i) for i in range(self.scale_count)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self)
        if self.sizes is None:
            del values["sizes"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; an unknown, missing or wrong field is a `WeightsError` that names it."""
        values = dict(values)
        sizes = values.pop("sizes", None)
        if sizes is not None and not isinstance(sizes, dict):
            raise WeightsError(f"sizes must be an object (got {sizes!r})")
        return cls(**_plain(cls, values, "sizes"), sizes=None if sizes is None else PublicSizes.from_dict(sizes))


def _plain(kind: type, values: dict[str, Any], *others: str) -> dict[str, Any]:
    """Fields for the constructor of `kind`, all of them but `others`."""
    names = {field.name for field in dataclasses.fields(kind)} - set(others)
    if unknown := set(values) - names:
        raise WeightsError(f"unknown configuration fields: {', '.join(sorted(unknown))}")
    if missing := names - set(values):
        raise WeightsError(f"missing configuration fields: {', '.join(sorted(missing))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _is_width(name: str) -> bool:
    return name not in RANGES and name not in ("name", "sizes") and not name.endswith(DEPTHS)


def _check_fields(sizes: ModelConfig | PublicSizes) -> None:
    """`WeightsError` names the first field of the wrong type or out of its range."""
    for field in dataclasses.fields(sizes):
        name, value = field.name, getattr(sizes, field.name)
        low, high = RANGES.get(name, (0, MAX_DEPTH) if name.endswith(DEPTHS) else (1, MAX_WIDTH))

        def fits(number: Any, low: float = low, high: float = high, kind: Any = field.type) -> bool:
            types = (int, float) if kind == "float" else (int,)
            return isinstance(number, types) and not isinstance(number, bool) and low <= number <= high

        if field.type == "str":
            right, wanted = isinstance(value, str) and 1 <= len(value) <= 64, "a name of 1 to 64 characters"
        elif field.type == "PublicSizes | None":
            right, wanted = value is None or isinstance(value, PublicSizes), "PublicSizes"
        elif not str(field.type).startswith("tuple"):
            right, wanted = fits(value), f"{'a number' if field.type == 'float' else 'an integer'} of {low} to {high}"
        else:
            flags = field.type == "tuple[bool, ...]"
            each = (lambda item: isinstance(item, bool)) if flags else fits
            right = isinstance(value, tuple) and 1 <= len(value) <= MAX_LEVELS and all(map(each, value))
            wanted = f"1 to {MAX_LEVELS} {'truth values' if flags else f'integers of {low} to {high}'}"
        if not right:
            text = repr(value)
            raise WeightsError(f"{name} must be {wanted} (got {text if len(text) <= 80 else text[:77] + '...'})")


LITE = ModelConfig()
TINY = ModelConfig(  # for tests: every part, seconds on one core
    name="tiny", y_channels=8, z_channels=8, analysis=(8, 8, 8), hyper=8, context=8, latent=4, noise=2, transform=8,
    fidelity=(8, 8, 8), fidelity_blocks=(1, 1, 1), unet=(8, 8, 16, 16), unet_blocks=(1, 1), decoder=(8,),
)  # fmt: skip
SD21 = ModelConfig(
    name="sd21", y_channels=220, z_channels=320, analysis=(60, 120, 240, 480, 960), hyper=320, content=220, context=0,
    latent=4, noise=0, transform=320, fidelity=(960, 480, 240, 120, 60), fidelity_blocks=(9,),
    unet=(320, 640, 1280, 1280), decoder=(512, 512, 256, 128), decoder_blocks=(3, 3, 3, 3), beta_end=0.012,
    sizes=PublicSizes(),
)  # fmt: skip
SD21_TINY = ModelConfig(
    name="sd21-tiny", y_channels=8, z_channels=8, analysis=(4, 4, 8, 8, 8), hyper=8, content=8, context=0, latent=4,
    noise=0, transform=8, fidelity=(8, 8, 8, 4, 4), fidelity_blocks=(2,), unet=(8, 16, 16, 16),
    decoder=(16, 16, 8, 8), decoder_blocks=(2, 2, 2, 2), beta_end=0.012,
    sizes=PublicSizes(
        transform_blocks=1, vit=16, vit_depth=2, tokens=16, unet_blocks=1, unet_head=8, groups=4, vit_head=8,
        vit_grid=5, guidance_tokens=7,
    ),
)  # fmt: skip
CONFIGS = {config.name: config for config in (LITE, TINY, SD21, SD21_TINY)}
