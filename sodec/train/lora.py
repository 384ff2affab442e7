"""Low-rank adapters for the UNet (Hu et al., ICLR 2022), by peft: the option beside training all of it."""

from __future__ import annotations

from typing import Any

from torch import nn

from .parts import Parts


def inject(parts: Parts, rank: int) -> None:
    """Gives every convolution and linear layer of the UNet an adapter; `leave` reads its weight itself and has none."""
    from peft import LoraConfig, inject_adapter_in_model

    unet = parts.model.unet
    names = [name for name, module in unet.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[name for name in names if name != "leave"])
    inject_adapter_in_model(config, unet)


def merge(parts: Parts) -> None:
    """Adds the adapters to the weights and removes them; the UNet is then as it was built."""
    child: Any
    for module in list(parts.model.unet.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "base_layer"):
                child.merge()
                setattr(module, name, child.base_layer)
