"""Low-rank adapters for the UNet (Hu et al., ICLR 2022), by peft: the option beside training all of it."""

from __future__ import annotations

from torch import nn

from ..models.prepare import merge_adapters
from .parts import Parts


def inject(parts: Parts, rank: int) -> None:
    """Gives every convolution and linear layer of the UNet an adapter but the last, whose weight is read by itself."""
    from peft import LoraConfig, inject_adapter_in_model

    unet = parts.model.unet
    last = unet.ends()[1]
    names = [name for name, m in unet.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not last]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), unet)


def merge(parts: Parts) -> None:
    """Adds the adapters to the weights and removes them; the UNet is then as it was built."""
    merge_adapters(parts.model.unet)
