"""Convolutions with what follows them, normalisation, activation and attention of the blocks.

Those that have a kernel in `sodec.kernels` go through `kernels.dispatch` on CUDA, which chooses between it and PyTorch
(SODEC_KERNELS overrides). On a CPU, convolutions and norms of `lite` are those of `fused.py`; all else is PyTorch.
B batch, N positions, T tokens, H heads, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch, legality, reference
from .fused import FusedNorm, OnePassConv2d


def conv(
    layer: nn.Module, x: Tensor, *, residual: Tensor | None = None, silu: bool = False, doubled: bool = False,
    noise: Tensor | None = None, noise_layer: nn.Conv2d | None = None,
) -> Tensor:  # fmt: skip
    """The layer, then a pixel shuffle to twice the size if `doubled`, + residual, + a 1x1 layer of noise, then SiLU.

    Parameters
    ----------
    residual
        Like the result, or (B, C, 1, 1).
    noise, noise_layer
        Noise (B, K, ...) of the result's size, and a 1x1 convolution of it; both or neither.
    """
    if isinstance(layer, OnePassConv2d):
        if noise is not None and noise_layer is not None:
            residual = conv(noise_layer, noise, residual=residual)
        if residual is not None and residual.shape[2:] == (1, 1):  # sums in one pass take it like the result only
            y = layer(x).add_(residual)
            return F.silu(y, inplace=True) if silu else y
        return layer(x, residual, silu)
    weight = None if noise_layer is None else noise_layer.weight
    plain = noise_layer is None or noise_layer.bias is None
    if plain and _leaves_bias("bias_act", layer, x, residual, noise, weight):
        y = channels_last(without_bias(layer, x))
        residual, noise = (None if tensor is None else channels_last(tensor) for tensor in (residual, noise))
        weight = None if weight is None else weight.flatten(1).contiguous()
        return dispatch.bias_act(y, layer.bias, residual, noise, weight, silu, doubled)  # type: ignore[arg-type]
    # Not `layer(x)` of our own class, which would come here again.
    y = nn.Conv2d.forward(layer, x) if isinstance(layer, nn.Conv2d) else layer(x)
    if doubled:
        y = F.pixel_shuffle(y, 2)
    if residual is not None:
        y = residual + y
    if noise is not None and noise_layer is not None:
        y = y + noise_layer(noise)
    return F.silu(y) if silu else y


def _leaves_bias(kernel: str, layer: nn.Module, x: Tensor, *others: Tensor | None) -> bool:
    """Whether a kernel adds the layer's bias. Layers that training has wrapped, as LoRA does, add their own."""
    return (
        may_have_kernels(x)
        and isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        and layer.bias is not None
        and dispatch.fuses(kernel, x, layer.bias, *others)
    )


def may_have_kernels(x: Tensor) -> bool:
    """Whether to ask `kernels.dispatch` at all."""
    return x.is_cuda or legality.interpreted()


def without_bias(layer: nn.Module, x: Tensor, padding: int | None = None) -> Tensor:
    """A convolution less its bias, and with another zero padding where one is given."""
    if isinstance(layer, nn.ConvTranspose2d):
        assert padding is None
        weight, stride = layer.weight, layer.stride
        return F.conv_transpose2d(x, weight, None, stride, layer.padding, layer.output_padding)  # type: ignore[arg-type]
    assert isinstance(layer, nn.Conv2d)
    assert padding is not None or layer.padding_mode == "zeros"
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding if padding is None else padding)


def channels_last(x: Tensor) -> Tensor:
    """The same values in channels_last memory."""
    return x.contiguous(memory_format=torch.channels_last)


def conv_group_norm(layer: nn.Conv2d, x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """silu(norm(layer(x))); the kernel adds the layer's bias on its way."""
    if _leaves_bias("group_norm_silu", layer, x, norm.weight, norm.bias):
        y: Tensor = channels_last(without_bias(layer, x))
        return dispatch.group_norm_silu(
            y, norm.num_groups, norm.weight, norm.bias, norm.eps, silu=True, before=layer.bias
        )  # fmt: skip
    y = layer(x)
    del x  # where nobody else holds it, its memory is the norm's
    return group_norm(y, norm, silu=True)


def group_norm(x: Tensor, norm: nn.GroupNorm, *, silu: bool) -> Tensor:
    """The norm of x (B, C, H, W), then SiLU if asked for."""
    function = dispatch.group_norm_silu if may_have_kernels(x) else reference.group_norm_silu
    return function(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu)


def skip_norm(x: Tensor, skip: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """skip + x of (..., C), and the norm of it. x may be overwritten."""
    if may_have_kernels(x) and dispatch.fuses("skip_norm_act", x, skip, norm.weight, norm.bias):
        x, skip = x.contiguous(), skip.contiguous()
        return dispatch.skip_norm_act(x, skip, norm.weight, norm.bias, norm.eps)
    total = skip + x
    return total, norm(total)


def conv_skip_norm_silu(
    layer: nn.Module, x: Tensor, skip: Tensor, norm: nn.LayerNorm | FusedNorm
) -> tuple[Tensor, Tensor]:
    """skip + layer(x), (B, C, H, W), and SiLU of the norm of its channels."""
    if isinstance(norm, nn.LayerNorm) and _leaves_bias("skip_norm_act", layer, x, skip, norm.weight, norm.bias):
        y, skip = (channels_last(tensor).permute(0, 2, 3, 1) for tensor in (without_bias(layer, x), skip))
        bias: Tensor = layer.bias  # type: ignore[assignment]
        both = dispatch.skip_norm_act(y, skip, norm.weight, norm.bias, norm.eps, "silu", bias)
        return both[0].permute(0, 3, 1, 2), both[1].permute(0, 3, 1, 2)
    total = conv(layer, x, residual=skip)
    return total, channel_norm_silu(total, norm)


def channel_norm_silu(x: Tensor, norm: nn.LayerNorm | FusedNorm) -> Tensor:
    """The norm of the channels of x (B, C, H, W), position by position, then SiLU."""
    if isinstance(norm, FusedNorm):
        return norm(x)
    if may_have_kernels(x) and dispatch.fuses("channel_norm_act", x, norm.weight, norm.bias):
        return dispatch.channel_norm_act(channels_last(x), norm.weight, norm.bias, norm.eps, "silu")
    return F.silu(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def geglu(x: Tensor) -> Tensor:
    """h * gelu(g), (..., 2 C) to (..., C), h the first half."""
    return dispatch.geglu(x) if may_have_kernels(x) else reference.geglu(x)


def guided_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q (B, N, H, D) to few tokens k, v (B, T, H, D): (B, N, H, D)."""
    return (dispatch if may_have_kernels(q) else reference).guided_attention(q, k, v)


def self_attention(qkv: Tensor) -> Tensor:
    """Attention of packed qkv (B, N, 3, H, D): (B, N, H, D), contiguous."""
    return reference.guided_attention(*qkv.unbind(2))


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with one head as wide as the features, q, k, v (B, N, C): (B, N, C), contiguous."""
    one_head = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])  # fused only with four dimensions
    return one_head[:, 0].contiguous()
