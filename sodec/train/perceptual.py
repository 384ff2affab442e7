"""The learned perceptual term: ST-LPIPS with VGG features. AlexNet's variant is kept for judging, never trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def make_perceptual(
    crops: int = 4, size: int = 96, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Tensor], Tensor]:
    """Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) of a corner of the first `crops` pictures: (crops,).

    Few and small on a CPU, where one evaluation costs as much as the codec's own step.
    """
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="vgg", variant="shift_tolerant", verbose=False).eval().requires_grad_(False).to(device)

    def distance(x: Tensor, target: Tensor) -> Tensor:
        side = min(size, *x.shape[-2:])
        top, left = (int(torch.randint(0, whole - side + 1, ())) for whole in x.shape[-2:])
        a, b = (picture[:crops, :, top : top + side, left : left + side].float() * 2 - 1 for picture in (x, target))
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return network(a, b).float().flatten()

    return distance
