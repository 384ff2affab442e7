"""The sizes of a model: one dataclass, stored with the weights, from which every part is built."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of every part. Channels unless said otherwise; "1/16" is a 16th of the picture's side."""

    name: str = "lite"
    y_channels: int = 128  # coded latent, at 1/16
    z_channels: int = 64  # hyper latent, at 1/64
    analysis: tuple[int, int, int] = (48, 96, 160)  # widths of E at 1/4, 1/8, 1/16
    hyper: int = 96  # first width of the three branches that read z; 64 after each upsampling
    content: int = 64  # w, the second synthesis of z
    latent: int = 32  # channels of the diffusion latent, at 1/16
    transform: int = 160  # T_s
    transform_blocks: int = 2
    fidelity: tuple[int, int, int] = (160, 80, 40)  # widths of D_a at 1/16, 1/8, 1/4
    fidelity_blocks: tuple[int, int, int] = (2, 1, 1)
    vit: int = 192
    vit_depth: int = 4
    vit_patch: int = 16  # pixels of the half-size fidelity picture, so a token is 32 pixels of the picture
    tokens: int = 192  # D of the guidance tokens
    unet: tuple[int, int, int] = (160, 192, 192)  # widths at 1/16, 1/32, 1/64
    decoder: tuple[int, int, int] = (160, 128, 64)  # widths of D_m at 1/16, 1/8, 1/4
    decoder_blocks: tuple[int, int, int] = (2, 2, 1)
    quality_anchors: int = 5  # learnt gain vectors; qualities between are log-linear
    scale_min: float = 0.12  # the table of scales: log-uniform, index 0 is not coded (SKIP)
    scale_max: float = 64.0
    scale_count: int = 64
    beta_start: float = 0.00085  # scaled-linear schedule of 1,000 steps, as in Stable Diffusion;
    beta_end: float = 0.006  # its end is milder (SD: 0.012), so 1/sqrt(a_999) is 4.6 and not 14.6: bf16 can bear it
    timestep: int = 999

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
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; an unknown or missing field is a `WeightsError` that names it."""
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - names:
            raise WeightsError(f"unknown configuration fields: {', '.join(sorted(unknown))}")
        if missing := names - set(values):
            raise WeightsError(f"missing configuration fields: {', '.join(sorted(missing))}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


LITE = ModelConfig()
TINY = ModelConfig(  # for tests: every part, seconds on one core
    name="tiny", y_channels=8, z_channels=8, analysis=(8, 8, 8), hyper=8, content=8, latent=4, transform=8,
    transform_blocks=1, fidelity=(8, 8, 8), fidelity_blocks=(1, 1, 1), vit=16, vit_depth=1, tokens=16,
    unet=(8, 16, 16), decoder=(8, 8, 8), decoder_blocks=(1, 1, 1),
)  # fmt: skip
