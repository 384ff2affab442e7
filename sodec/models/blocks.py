"""Building blocks shared by the parts. Tensors are (B, C, H, W) in channels_last memory.

No normalisation layer crosses positions when a picture is decoded (the statistics of batch norms are constants then):
a tile decodes as the picture would. Residual branches start small.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .fused import OnePassConv2d


class Conv(nn.Conv2d):
    """A convolution whose bias a kernel adds where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Conv:
    """A convolution that keeps (or, with a stride, divides) the size."""
    return Conv(inputs, outputs, kernel, stride, kernel // 2)


def conv_in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """The convolution in float32, whatever the dtype of x and of the weights.

    It gives eps, and the one step multiplies eps's rounding errors by 1/sqrt(a_t). One by the native module has float32
    sums and is rounded once, which no figure of lite's pictures shows (rms of 0.46 to 0.51 grey levels from float32's,
    with and without).
    """
    if isinstance(layer, OnePassConv2d):
        y: Tensor = layer(x)
        return y.float()
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=layer.padding)


class Fidelity(NamedTuple):
    """What the fidelity decoder D_a gives.

    Attributes
    ----------
    pixels
        The fidelity picture, as `unfolded` takes it.
    features
        What D_a worked with at 1/16, 1/8 and 1/4, which guides `lite`; of `sd21` nothing.
    """

    pixels: Tensor
    features: tuple[Tensor, ...] = ()

    @property
    def picture(self) -> Tensor:
        """x_f (B, 3, 16 h, 16 w), about 0..1."""
        return unfolded(self.pixels)


def unfolded(pixels: Tensor) -> Tensor:
    """The picture (B, 3, H, W) of pixels that come as such, or less 0.5 and folded by 4: (B, 48, H/4, W/4).

    Folded ones become float32, since in bfloat16 the sum with 0.5 would round them to 1/256.
    """
    return pixels if pixels.shape[1] == 3 else F.pixel_shuffle(pixels.float(), 4) + 0.5


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))): two 3x3 convolutions.

    `norm` is of the channels of each position. Without it activations stayed at a tenth, where silu is a line.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv1 = conv(width, width)
        self.conv2 = conv(width, width)
        nn.init.kaiming_normal_(self.conv1.weight)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = ops.conv(self.conv1, ops.channel_norm_silu(x, self.norm), silu=True)
        return ops.conv(self.conv2, hidden, residual=x)


class ResBlocks(nn.Sequential):
    """Residual blocks one after the other; a kernel may norm for the next what it sums for the one before."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(*(ResBlock(width) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        blocks: list[Any] = list(self)
        if not blocks:
            return x
        normed = ops.channel_norm_silu(x, blocks[0].norm)
        for block, following in zip_longest(blocks, blocks[1:]):
            hidden = ops.conv(block.conv1, normed, silu=True)
            if following is None:
                return ops.conv(block.conv2, hidden, residual=x)
            x, normed = ops.conv_skip_norm_silu(block.conv2, hidden, x, following.norm)
        raise AssertionError


MOMENTUM = 0.02  # of running statistics


class BatchNorm(nn.BatchNorm2d):
    """A batch norm that can also train on one value per channel, which has no variance: the running one stands in."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class CentredBlock(nn.Module):
    """x + norm(conv(silu(norm(conv(x))))), two 3x3 convolutions with batch norms, which `prepare` folds into them.

    The norms are on the branch. With x + branch(norm(x)) nothing holds what all positions of the stream share: the
    next norm takes it out again, Adam moves it at random, and after 7,400 steps it was 194 beside a spread over
    positions of 32, so the UNet gave a constant. A branch that is centred itself can't feed that.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(width, width), BatchNorm(width)
        self.conv2, self.bn2 = conv(width, width), BatchNorm(width)
        nn.init.constant_(self.bn2.weight, 0.3)

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """With `silu`, SiLU of the sum."""
        if isinstance(self.bn2, nn.Identity):
            return ops.conv(self.conv2, ops.conv(self.conv1, x, silu=True), residual=x, silu=silu)
        y = x + self.bn2(self.conv2(F.silu(self.bn1(self.conv1(x)))))
        return F.silu(y) if silu else y


class Centred(nn.Module):
    """A layer to another width or size, then a batch norm, which `prepare` folds into it."""

    def __init__(self, layer: nn.Conv2d | Upsample, width: int) -> None:
        super().__init__()
        self.layer, self.bn = layer, BatchNorm(width)

    def forward(
        self, x: Tensor, *, residual: Tensor | None = None, noise: Tensor | None = None,
        noise_layer: nn.Conv2d | None = None,
    ) -> Tensor:  # fmt: skip
        """+ residual, and a 1x1 layer of noise, as in `ops.conv`."""
        if isinstance(self.bn, nn.Identity):
            upsample = isinstance(self.layer, Upsample)
            layer: Any = self.layer[0] if upsample else self.layer  # type: ignore[index]
            return ops.conv(
                layer, x, residual=residual, doubled=upsample, noise=noise, noise_layer=noise_layer
            )  # fmt: skip
        y = self.bn(self.layer(x))
        if residual is not None:
            y = residual + y
        return y if noise is None or noise_layer is None else y + noise_layer(noise)


class Upsample(nn.Sequential):
    """Twice the size: a convolution to 4x channels, then a pixel shuffle."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__(conv(inputs, 4 * outputs, kernel), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv(self[0], x, doubled=True)


class JoinedLinear(nn.Module):
    """Base of attentions with a linear layer each for q, k and v (`names`), which `join` merges into one."""

    names = ("to_q", "to_k", "to_v")

    def __init__(self) -> None:
        super().__init__()
        self.joined: nn.Linear | None = None

    def qkv(self, x: Tensor) -> Tensor:
        """q, k and v of x (..., C), side by side: (..., 3 C)."""
        if self.joined is not None:
            return self.joined(x)
        return torch.cat([getattr(self, name)(x) for name in self.names], -1)

    def join(self) -> None:
        """Merges the three layers into one with the same outputs."""
        self.joined = joined_linear([getattr(self, name) for name in self.names])
        for name in self.names:
            delattr(self, name)


def joined_linear(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer whose outputs are those of `layers` side by side; all have a bias, or none."""
    first = layers[0]
    outputs = sum(layer.out_features for layer in layers)
    with torch.device("meta"):
        whole = nn.Linear(first.in_features, outputs, first.bias is not None)
    whole.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if first.bias is not None:
        whole.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return whole
