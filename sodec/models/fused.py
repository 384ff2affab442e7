"""What a CPU computes in one pass: convolutions with what follows them, and a norm with its SiLU.

PyTorch adds and activates in passes of their own, and reorders a convolution's weights at every call. oneDNN's
operators here are those that torch.compile's CPU backend calls; by themselves they need no compiler. The native module
has 3x3 convolutions of bfloat16 that multiply 16 times where the definition does so 36 times.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import _native

_ops: Any = torch.ops.mkldnn
LEAST_CHANNELS = 32  # below that transforming takes longer than it saves


def share_threads() -> None:
    """Has the native module use PyTorch's threads. Those wait for work in a loop, and so take the cores from others.

    PyTorch comes with an OpenMP library of its own, which is found by the library that depends on it. Where there is
    none, as on Windows, the native module starts threads.
    """
    name = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}.get(sys.platform)
    if name is None:
        return
    try:
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).GOMP_parallel
    except (OSError, AttributeError):
        return
    _native.use_openmp(ctypes.cast(function, ctypes.c_void_p).value or 0)


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this processor, has the operators for `dtype`."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
    if not all(hasattr(_ops, name) for name in names):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(_ops._is_mkldnn_bf16_supported()))


class OnePassConv2d(nn.Module):
    """What a convolution padded by zeros computes, and what follows it.

    Parameters
    ----------
    doubled
        A pixel shuffle to twice the size follows. The weights are then in the order of the four pixels and not of the
        channels, so that the shuffle copies runs of channels: 0.5 ms in place of 2.1 for 40 channels of 240x136.
    """

    def __init__(self, doubled: bool) -> None:
        super().__init__()
        self.doubled = doubled

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

    @property
    def weight(self) -> Tensor:
        """In some order."""
        raise NotImplementedError

    def _convolved(self, x: Tensor, residual: Tensor | None, silu: bool) -> Tensor:
        raise NotImplementedError


class FusedConv2d(OnePassConv2d):
    """`layer` by oneDNN.

    Parameters
    ----------
    packs
        Inputs mostly have the size of the one before, so weights are held in oneDNN's order for that size.
    """

    def __init__(self, layer: nn.Conv2d, *, doubled: bool = False, packs: bool = True) -> None:
        super().__init__(doubled)
        weight, self.bias, self.packs = layer.weight.detach(), layer.bias, packs
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


class WinogradConv2d(OnePassConv2d):
    """`layer` by the native module, of bfloat16: Winograd's F(2x2, 3x3) (Lavin and Gray, CVPR 2016).

    For 2x2 outputs it multiplies 16 transformed inputs by 16 transformed weights, in place of 36 products. The weights
    are transformed before they are rounded, so `layer` is to be given as it was stored.
    """

    def __init__(self, layer: nn.Conv2d, *, doubled: bool = False) -> None:
        super().__init__(doubled)
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        if doubled:
            weight, bias = _by_pixel(weight), _by_pixel(bias)
        self.bias, self._weight = bias.float(), transformed(weight)

    @property
    def weight(self) -> Tensor:
        """As `transformed` gives it."""
        return self._weight

    def _convolved(self, x: Tensor, residual: Tensor | None, silu: bool) -> Tensor:
        y: Tensor = torch.ops.sodec.winograd(x, self._weight, self.bias, residual, silu)
        return y


def can_transform(layer: nn.Conv2d, dtype: torch.dtype) -> bool:
    """Whether `WinogradConv2d` can take this layer, and computes it faster on this processor."""
    outputs, inputs = layer.weight.shape[:2]
    return (
        dtype == torch.bfloat16
        and _native.has_winograd()
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and layer.groups == 1
        and inputs % 2 == 0
        and min(inputs, outputs) >= LEAST_CHANNELS
        and _group(outputs) > 0
    )


def transformed(weight: Tensor) -> Tensor:
    """G g G^T of each 3x3 kernel g of weights (O, I, 3, 3), as bfloat16 in the native module's order.

    The result is (blocks, 16, I/2, 16 group, 2): a block has the outputs that are computed together, in `group` vectors
    of 16; zeros fill the last one. Two inputs lie side by side, as the processor multiplies them.
    """
    outputs, inputs = weight.shape[:2]
    group = _group(outputs)
    g = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    matrices = (weight.float().flatten(2) @ torch.kron(g, g).T).to(torch.bfloat16)  # (O, I, 16)
    matrices = F.pad(matrices, (0, 0, 0, 0, 0, -outputs % (16 * group)))
    return matrices.view(-1, 16 * group, inputs // 2, 2, 16).permute(0, 4, 2, 1, 3).contiguous()


def _group(outputs: int) -> int:
    """Vectors of 16 outputs that are computed together: 5 to 2, which must divide all of them; 0 if none does."""
    vectors = -(-outputs // 16)
    return next((group for group in (5, 4, 3, 2) if vectors % group == 0), 0)


def _winograd(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, silu: bool) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    size = (x.shape[0], bias.shape[0], *x.shape[2:])
    y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    added = None
    if residual is not None:
        added = _halves(residual.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1))
    given, result = (_halves(tensor.permute(0, 2, 3, 1)) for tensor in (x, y))
    _native.winograd(given, _halves(weight), bias.numpy(), added, silu, result, torch.get_num_threads())
    return y


def _halves(tensor: Tensor) -> NDArray[np.uint16]:
    """The bits of bfloat16, which NumPy does not have."""
    return tensor.view(torch.uint16).numpy()


share_threads()
# An operator, so that profiles and counts of operations see it.
_library: Any = torch.library.Library("sodec", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("winograd(Tensor x, Tensor weight, Tensor bias, Tensor? residual, bool silu) -> Tensor")
_library.impl("winograd", _winograd, "CPU")


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
        given, result = (_halves(tensor.permute(0, 2, 3, 1).flatten(0, 2)) for tensor in (x, y))
        _native.channel_norm_silu(given, self.scale, self.shift, self.eps, result, torch.get_num_threads())
        return y


def can_fuse_norms(dtype: torch.dtype) -> bool:
    """Whether the native module can."""
    return dtype == torch.bfloat16 and _native.has_channel_norm()


def _by_pixel(values: Tensor) -> Tensor:
    """Four values of each channel to the channels of each of four pixels."""
    return values.view(-1, 4, *values.shape[1:]).transpose(0, 1).flatten(0, 1)
