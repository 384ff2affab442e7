"""`prepare`: a model made ready to run on one device in one dtype. Folds are exact and done once.

The decoder is run at one timestep, for one step, with frozen weights; what depends on these alone becomes weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import legality
from .blocks import Centred, CentredBlock, Conv, JoinedLinear, ResBlock, Upsample, joined_linear
from .fused import FusedConv2d, FusedNorm, WinogradConv2d, can_fuse, can_fuse_norms, can_transform
from .lite import LatentDecoder
from .model import SodecModel
from .sd21 import DiffusionUNet, VaeDecoder
from .sd21.resnet import NearestUpsample, ResnetBlock
from .sd21.transformer import TokenAttention
from .sd21.vae import PixelAttention
from .sd21.vit import DEVIATION, MEAN, Dinov2
from .sd21.vit import Layer as VitLayer


@dataclass
class Prepared:
    """The model, and what was folded: how often, by name. `str` of it is a table."""

    model: SodecModel
    device: torch.device
    dtype: torch.dtype
    folded: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        lines = [f"{self.model.config.name} on {self.device}, {dtype}, channels_last; folded:"]
        return "\n".join([*lines, *(f"  {count:>4}  {name}" for name, count in self.folded.items())])


@torch.no_grad()
def prepare(model: SodecModel, device: torch.device, dtype: torch.dtype, *, one_step: bool = True) -> Prepared:
    """Folds what is fixed into weights, then moves the model to `device`. The model itself is changed.

    Parameters
    ----------
    one_step
        False keeps timestep and factors out of the weights, for the many steps of `ddim`.
    """
    model.requires_grad_(False).eval()
    folds = {
        "LoRA adapters into the weights that they adapt": merge_adapters(model),
        "q, k, v of a self-attention into one product": _join_self_attentions(model),
        "batch norms into the convolutions before them": fold_batch_norms(model),
    }
    if isinstance(model.latent_decoder, LatentDecoder):
        folds["bias of the noise's layer into the one before its sum"] = _fold_noise_bias(model.latent_decoder)
    if isinstance(model.unet, DiffusionUNet):
        folds["keys and values of the guidance tokens into one product"] = _join_token_attentions(model.unet)
        if one_step:
            folds["time embedding at the one timestep into biases"] = _fold_time(model.unet, model.config.timestep)
    if one_step:
        folds["factors of the one step into the convolutions around it"] = _fold_step(model)
    folds["nearest upsamplings into the convolutions behind them"] = fold_upsamplings(model)
    if isinstance(model.latent_decoder, VaeDecoder):
        folds["last product of an attention with one head into its values"] = fold_values(model.latent_decoder)
        folds["scale of latent and picture into the latent decoder's ends"] = _fold_scales(model.latent_decoder)
    if isinstance(model.vit, Dinov2):
        folds["layer scales of the ViT into the layers before them"] = _fold_layer_scales(model.vit)
        folds["normalisation of the ViT's pixels into its first layer"] = _fold_normalisation(model.vit)
    # A 16-bit gain would not be the one whose index offsets are stored; a rounded a_t would not be the schedule's.
    log_gain, alphas = model.gain.log_gain.detach().clone(), model.alphas.clone()
    last = model.unet.ends()[1]  # runs in float32
    kept = copy.deepcopy(last)
    fuses = model.config.sizes is None and device.type == "cpu" and not legality.interpreted() and can_fuse(dtype)
    if fuses:  # before weights are rounded
        folds["3x3 convolutions by Winograd's algorithm, by the native module"] = _transform(model, dtype)
    model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    for name, parameter in kept.named_parameters():
        getattr(last, name).data = parameter.to(device).contiguous(
            memory_format=torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
        )
    model.gain.log_gain.data = log_gain.to(device)
    model.alphas = alphas.to(device)
    if fuses:
        folds["convolutions that add and activate as well, by oneDNN"] = _fuse(model)
        if can_fuse_norms(dtype):
            folds["layer norms that activate as well, by the native module"] = _fuse_norms(model)
    return Prepared(model, device, dtype, {name: count for name, count in folds.items() if count})


def _transform(model: SodecModel, dtype: torch.dtype) -> int:
    """lite's 3x3 convolutions, and what follows them, by Winograd's algorithm where that is faster. How many."""
    count = 0
    for parent, name, layer in [*_convolutions(model), (model.unet, "leave", model.unet.ends()[1])]:
        if can_transform(layer, dtype):
            setattr(parent, name, WinogradConv2d(layer, doubled=isinstance(parent, Upsample)))
            count += 1
    return count


def _fuse(model: SodecModel) -> int:
    """Convolutions with what follows them in place of lite's, where one pass can compute both. How many there were."""
    # These are run tile by tile, which differ in size.
    of_tiles = {id(layer) for part in (model.mean, model.context) if part is not None for layer in part.modules()}
    count = 0
    for parent, name, layer in _convolutions(model):
        doubled, packs = isinstance(parent, Upsample), id(layer) not in of_tiles
        setattr(parent, name, FusedConv2d(layer, doubled=doubled, packs=packs))
        count += 1
    return count


def _convolutions(model: SodecModel) -> list[tuple[nn.Module, str, Conv]]:
    """Those of lite that follow each other, with the modules that hold them and the names there."""
    in_float32 = model.unet.ends()[1]  # by `conv_in_float32`
    return [
        (parent, name, layer) for parent in model.modules() for name, layer in parent.named_children()
        if isinstance(layer, Conv) and layer is not in_float32
    ]  # fmt: skip


def _fuse_norms(model: SodecModel) -> int:
    blocks = [one for one in model.modules() if isinstance(one, ResBlock) and isinstance(one.norm, nn.LayerNorm)]
    for block in blocks:
        block.norm = FusedNorm(block.norm)  # type: ignore[assignment]
    return len(blocks)


def merge_adapters(module: nn.Module) -> int:
    """Adds peft's adapters to the weights and removes them; `module` is then as it was built. How many there were."""
    count = 0
    child: Any
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "base_layer"):
                child.merge()
                setattr(parent, name, child.base_layer)
                count += 1
    return count


def _join_self_attentions(model: SodecModel) -> int:
    attentions = [module for module in model.modules() if isinstance(module, JoinedLinear) and module.joined is None]
    for attention in attentions:
        attention.join()
    return len(attentions)


def fold_batch_norms(module: nn.Module) -> int:
    """Every batch norm into the convolution before it, in float64. How many there were.

    norm(conv(x)) is a convolution with weight * s and (bias - mean) * s + shift, s = scale / sqrt(variance + eps). A
    channel behind a pixel shuffle is four of the convolution's.
    """
    count = 0
    for part in list(module.modules()):
        names: tuple[tuple[str, str], ...] = ()
        if isinstance(part, CentredBlock):
            names = (("conv1", "bn1"), ("conv2", "bn2"))
        elif isinstance(part, Centred):
            names = (("layer", "bn"),)
        for name, norm_name in names:
            layer: Any = getattr(part, name)
            norm = getattr(part, norm_name)
            if isinstance(norm, nn.Identity):
                continue
            layer = layer[0] if isinstance(layer, Upsample) else layer
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - norm.running_mean.double() * scale
            copies = layer.out_channels // len(scale)
            _scale(layer, scale.repeat_interleave(copies))
            _add_to_bias(layer, shift.repeat_interleave(copies))
            setattr(part, norm_name, nn.Identity())
            count += 1
    return count


def _fold_noise_bias(decoder: LatentDecoder) -> int:
    """So that the layer can be computed where its result is added."""
    noise: Any = decoder.noise
    if noise.bias is None:
        return 0
    before: Any = decoder.to_4.layer
    _add_to_bias(before[0], noise.bias.repeat_interleave(4))
    noise.bias = None
    return 1


def _join_token_attentions(unet: DiffusionUNet) -> int:
    """`unet.token_kv` takes the place of the layers for keys and values, each block its share of the outputs."""
    if unet.token_kv is not None:
        return 0
    layers: list[nn.Linear] = []
    count = start = 0
    for module in unet.modules():
        if not isinstance(module, TokenAttention):
            continue
        own = [module.to_k, module.to_v]
        del module.to_k, module.to_v
        size = sum(layer.out_features for layer in own)
        module.place = slice(start, start + size)
        layers += own
        start += size
        count += 1
    unet.token_kv = joined_linear(layers)
    return count


def _fold_time(unet: DiffusionUNet, timestep: int) -> int:
    """The time embedding is a constant: what each block makes of it goes into the bias before it."""
    step = torch.tensor([timestep], device=unet.conv_in.weight.device)
    time = unet.time_features(step, torch.float32)
    if time is None:
        return 0
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock)]
    unet.forget_time()
    return sum(block.fold_time(time) for block in blocks)


def _fold_step(model: SodecModel) -> int:
    """l_0 = u + e: T_s gives u = keep l_t, the UNet takes it back as it enters, and gives e = noise eps."""
    keep, noise = model.one_step
    if (keep, noise) == (1.0, 1.0):
        return 0
    last: Any = model.transform.leave
    conv: Any = last[0] if isinstance(last, Upsample) else last
    _scale(conv, keep)
    first, last = model.unet.ends()
    latent = slice(model.config.latent)  # beside it lite's UNet is given noise
    first.weight[:, latent] = first.weight[:, latent].double() / keep
    _scale(last, noise)
    model.one_step, model.latent_scale = (1.0, 1.0), 1 / keep
    return 3


def _fold_scales(decoder: VaeDecoder) -> int:
    if decoder.scale == 1:
        return 0
    _scale(decoder.post_quant_conv, 1 / decoder.scale, bias=False)
    _scale(decoder.decoder.conv_out, 0.5)
    _add_to_bias(decoder.decoder.conv_out, 0.5)
    decoder.scale, decoder.centred = 1.0, False
    return 2


def fold_upsamplings(module: nn.Module) -> int:
    """Nearest upsampling and a 3x3 convolution as one transposed 4x4 convolution of stride 2. How many there were.

    Of the three rows that the convolution reads, two have the same origin: an even row 2 i takes w0 of row i - 1 and
    w1 + w2 of row i, an odd one w0 + w1 of row i and w2 of row i + 1, and so do columns. So there are 4 products for a
    pixel instead of 9, and no picture of twice the size between. A transposed convolution multiplies its input at i
    with row k of its weight for row 2 i + k - 1 of its output.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, NearestUpsample) and not layer.folded]
    for layer in layers:
        old = layer.conv
        weight = old.weight.double()
        for axis in (2, 3):
            first, middle, last = weight.unbind(axis)
            weight = torch.stack([last, middle + last, first + middle, first], axis)
        with torch.device("meta"):
            new = nn.ConvTranspose2d(old.in_channels, old.out_channels, 4, 2, 1)
        new.weight = nn.Parameter(weight.transpose(0, 1).to(old.weight.dtype), requires_grad=False)
        new.bias = old.bias
        layer.conv = new
    return len(layers)


def fold_values(module: nn.Module) -> int:
    """An attention's last product W_o into its values. How many there were.

    W_o (A (W_v x + b_v)) + b_o = A (W_o W_v x + W_o b_v + b_o), since the rows of A sum to 1.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, PixelAttention) and len(layer.to_out)]
    for layer in layers:
        qkv, out = layer.joined, layer.to_out[0]
        assert qkv is not None
        assert isinstance(out, nn.Linear)
        width = out.in_features
        weight = out.weight.double()
        qkv.weight[-width:] = weight @ qkv.weight[-width:].double()
        # The bias of the values, where every weight of the attention meets it.
        qkv.bias[-width:] = weight @ qkv.bias[-width:].double() + out.bias.double()
        layer.to_out = nn.ModuleList()
    return len(layers)


def _fold_layer_scales(vit: Dinov2) -> int:
    layers = [module for module in vit.modules() if isinstance(module, VitLayer) and module.layer_scale1 is not None]
    for layer in layers:
        assert layer.layer_scale1 is not None
        assert layer.layer_scale2 is not None
        _scale(layer.attention.o_proj, layer.layer_scale1.lambda1)
        _scale(layer.mlp.fc2, layer.layer_scale2.lambda1)
        layer.layer_scale1 = layer.layer_scale2 = None
    return 2 * len(layers)


def _fold_normalisation(vit: Dinov2) -> int:
    """(x - mean) / deviation of each colour; the first layer pads nothing, so its bias takes the means."""
    if not vit.normalise:
        return 0
    layer = vit.embeddings.patch_embeddings.projection
    weight = layer.weight.double()
    mean, deviation = (weight.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    weight = weight / deviation
    _add_to_bias(layer, -(weight * mean).sum((1, 2, 3)))
    layer.weight.copy_(weight)
    vit.normalise = False
    return 1


def _scale(layer: nn.Conv2d | nn.Linear, factor: float | Tensor, *, bias: bool = True) -> None:
    """Multiplies the outputs of `layer` by a number, or each by its own; without `bias`, its inputs by a number."""
    weight = layer.weight.double()
    factors = torch.as_tensor(factor, dtype=torch.float64, device=weight.device)
    layer.weight.copy_(weight * factors.reshape(-1, *[1] * (weight.ndim - 1)))
    if bias and layer.bias is not None:
        layer.bias.copy_(layer.bias.double() * factors)


def _add_to_bias(layer: nn.Conv2d, value: float | Tensor) -> None:
    assert layer.bias is not None
    layer.bias.copy_(layer.bias.double() + value)
