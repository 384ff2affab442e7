"""The feature networks of the Frechet distance, from a safetensors file in torchvision's layout.

Safetensors and not TorchScript, the form in which FID tools pass Inception on: loading that runs code from the file.
The names of the tensors say which network it is.

- Inception v3: the 2,048 pooled features, of patches resized to 299x299. torchvision's weights and layers are not those
  of the original FID, so distances are not comparable with published ones.
- VGG16: the 512 channels of its last convolution, averaged over the patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from .frechet import Features
from .optional import require

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, which both were trained on
BATCH = 8
INCEPTION, VGG = "Inception v3", "VGG16"
FIRST = {"Conv2d_1a_3x3.conv.weight": INCEPTION, "features.0.weight": VGG}


def load_features(path: Path) -> tuple[str, Features]:
    """The network's name and its function.

    Raises
    ------
    WeightsError
        The file is no safetensors file, or of no network known here, or lacks a tensor, which is named.
    MissingPackageError
        torchvision is not installed.
    """
    tensors = _read(path)
    name = next((name for first, name in FIRST.items() if first in tensors), None)
    if name is None:
        raise WeightsError(f"{path} holds neither torchvision's {INCEPTION} nor its {VGG}: no {' and no '.join(FIRST)}")
    models = require("torchvision.models", "the Frechet distance", "torchvision")
    return name, _function(_filled(_inception(models) if name == INCEPTION else _vgg(models), tensors, path), name)


def _read(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from None


def _inception(models: Any) -> Any:
    import torch

    network = models.inception_v3(weights=None, init_weights=False, aux_logits=False)
    network.fc, network.dropout = torch.nn.Identity(), torch.nn.Identity()
    return network


def _vgg(models: Any) -> Any:
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = models.vgg16(weights=None, init_weights=False).features[:-1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.features(x).mean((2, 3))

    return Pooled()


def _filled(network: Any, tensors: dict[str, Any], path: Path) -> Any:
    """The network with its tensors; those of a classifier behind the features are left aside."""
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # counts training steps
            continue
        if name not in tensors:
            raise WeightsError(f"{path} lacks {name}")
        if tensors[name].shape != value.shape:
            found, needed = tuple(tensors[name].shape), tuple(value.shape)
            raise WeightsError(f"{path}: {name} is {found}, the network needs {needed}")
        value.copy_(tensors[name])
    return network.eval().requires_grad_(False)


def _function(network: Any, name: str) -> Features:
    import torch
    import torch.nn.functional as F

    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))

    @torch.inference_mode()
    def features(patches: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(patches), BATCH):
            x = torch.from_numpy(patches[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            if name == INCEPTION:
                x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False, antialias=True)
            found.append(network((x - mean) / deviation))
        return torch.cat(found).numpy()

    return features
