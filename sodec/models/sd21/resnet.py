"""What UNet and autoencoder share: the residual block and the changes of size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..blocks import conv


class ResnetBlock(nn.Module):
    """x (B, C, H, W), through an 1x1 convolution where the widths differ, + two normalised 3x3 convolutions.

    `time` (B, time_width) shifts the features between them, unless its share is folded into `conv1`'s bias.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, time_width: int = 0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = conv(inputs, outputs)
        self.time_emb_proj = nn.Linear(time_width, outputs) if time_width else None
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = conv(outputs, outputs)
        self.conv_shortcut = conv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        if self.time_emb_proj is not None and time is not None:
            hidden = self.conv1(ops.group_norm(x, self.norm1, silu=True)) + self.time_emb_proj(time)[:, :, None, None]
            hidden = ops.group_norm(hidden, self.norm2, silu=True)
        else:
            hidden = ops.conv_group_norm(self.conv1, ops.group_norm(x, self.norm1, silu=True), self.norm2)
        return ops.conv(self.conv2, hidden, residual=x if self.conv_shortcut is None else self.conv_shortcut(x))

    def fold_time(self, time: Tensor) -> bool:
        """Makes the shift by this one embedding (1, time_width) a part of the bias. False where there is none."""
        if self.time_emb_proj is None:
            return False
        assert self.conv1.bias is not None
        shift = self.time_emb_proj.double()(time.double())[0]
        self.conv1.bias.copy_(self.conv1.bias.double() + shift)
        self.time_emb_proj = None
        return True


class Downsample(nn.Module):
    """Half the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv(self.conv, x)


class NearestUpsample(nn.Module):
    """Twice the size: every pixel four times, then a convolution; `prepare` makes both one transposed convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d = conv(width, width)

    @property
    def folded(self) -> bool:
        """Whether it is one convolution."""
        return isinstance(self.conv, nn.ConvTranspose2d)

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return ops.conv(self.conv, x)
        return ops.conv(self.conv, F.interpolate(x, scale_factor=2.0, mode="nearest"))
