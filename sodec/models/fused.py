"""What a CPU computes in one pass: convolutions by oneDNN with what follows them, and a norm with its SiLU.

PyTorch adds and activates in passes of their own, and reorders a convolution's weights at every call. oneDNN's
operators here are those that torch.compile's CPU backend calls; by themselves they need no compiler.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _native

_ops: Any = torch.ops.mkldnn


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this processor, has the operators for `dtype`."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
    if not all(hasattr(_ops, name) for name in names):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(_ops._is_mkldnn_bf16_supported()))


class FusedConv2d(nn.Module):
    """What `layer` computes, and what follows it; `layer` is padded by zeros.

    Parameters
    ----------
    doubled
        A pixel shuffle to twice the size follows. The weights are then in the order of the four pixels and not of the
        channels, so that the shuffle copies runs of channels: 0.5 ms in place of 2.1 for 40 channels of 240x136.
    packs
        Inputs mostly have the size of the one before, so weights are held in oneDNN's order for that size.
    """

    def __init__(self, layer: nn.Conv2d, *, doubled: bool = False, packs: bool = True) -> None:
        super().__init__()
        weight, self.bias, self.doubled, self.packs = layer.weight.detach(), layer.bias, doubled, packs
        if doubled:
            weight = _by_pixel(weight).contiguous(memory_format=torch.channels_last)
            if self.bias is not None:
                self.bias.data = _by_pixel(self.bias.detach())
        padding = cast("tuple[int, ...]", layer.padding)
        self.options = list(padding), list(layer.stride), list(layer.dilation), layer.groups
        self._packed: tuple[torch.Size | None, Tensor] = None, weight

    @property
    def weight(self) -> Tensor:
        """In some order."""
        return self._packed[1]

    def packed(self, size: torch.Size) -> Tensor:
        """The weights in oneDNN's order for inputs of this size.

        Other sizes ask for other orders, and weights in a wrong one are reordered at every call by slow code: 6 ms in
        place of 0.1 for a 1x1 convolution of 192 to 768 channels. So they are held for the last size only.
        """
        now, weight = self._packed
        if self.packs and now != size:
            plain = weight.to_dense() if weight.is_mkldnn else weight
            weight = _ops._reorder_convolution_weight(plain, *self.options, list(size))
            self._packed = size, weight
        return weight

    def __getstate__(self) -> dict[str, Any]:
        """For copies: weights in oneDNN's order can't be copied."""
        weight = self._packed[1]
        return {**self.__dict__, "_packed": (None, weight.to_dense() if weight.is_mkldnn else weight)}

    def forward(self, x: Tensor, residual: Tensor | None = None, silu: bool = False) -> Tensor:
        """silu(layer(x) + residual), of which residual and SiLU are optional."""
        if not self.doubled:
            return self._convolved(x, residual, silu)
        y = self._convolved(x, None, silu and residual is None).permute(0, 2, 3, 1)
        batch, height, width, channels = y.shape
        y = y.view(batch, height, width, 2, 2, channels // 4).transpose(2, 3)
        y = y.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
        if residual is None:
            return y
        y = y.add_(residual)
        return F.silu(y, inplace=True) if silu else y

    def _convolved(self, x: Tensor, residual: Tensor | None, silu: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        weight = self.packed(x.shape)
        y: Tensor
        if residual is None:
            y = _ops._convolution_pointwise(x, weight, self.bias, *self.options, "swish" if silu else "none", [], "")
            return y
        residual = residual.contiguous(memory_format=torch.channels_last)
        y = _ops._convolution_pointwise.binary(
            x, residual, weight, self.bias, *self.options, "add", None, None, [], None
        )
        return F.silu(y, inplace=True) if silu else y  # the operator can't do both


class FusedNorm(nn.Module):
    """The layer norm `norm` over the channels of each position, then SiLU, of bfloat16: native code.

    Of 40 channels of 480x272 it takes 3.1 ms of one core, and PyTorch's norm and SiLU 11.9.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.scale, self.shift = (values.detach().float().numpy() for values in (norm.weight, norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), as the result."""
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x)
        given, result = (tensor.permute(0, 2, 3, 1).flatten(0, 2).view(torch.uint16).numpy() for tensor in (x, y))
        _native.channel_norm_silu(given, self.scale, self.shift, self.eps, result, torch.get_num_threads())
        return y


def can_fuse_norms(dtype: torch.dtype) -> bool:
    """Whether the native module can."""
    return dtype == torch.bfloat16 and _native.has_channel_norm()


def _by_pixel(values: Tensor) -> Tensor:
    """Four values of each channel to the channels of each of four pixels."""
    return values.view(-1, 4, *values.shape[1:]).transpose(0, 1).flatten(0, 1)
