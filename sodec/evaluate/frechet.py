"""Frechet distance between features of patches: are decoded pictures drawn as photographs are?

    d = |mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)),   mu, S mean and covariance of the features

Patches as in HiFiC (Mentzer et al., NeurIPS 2020): 256x256, all whole ones of a grid that begins in the corner, and of
a second grid that begins half a patch further down and right and has one patch less each way. The distance falls with
the number of patches and depends on the network, so tables give both: only equal ones compare.

The features come from a safetensors file in torchvision's layout, whose tensors' names say which network it is. Not
from TorchScript, the usual form of Inception in FID tools, since loading that runs code of the file.

- Inception v3: the 2,048 pooled features, of patches resized to 299x299. torchvision's weights and layers are not those
  of the original FID, so distances are not comparable with published ones.
- VGG16: the 512 channels of its last convolution, averaged over the patch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import WeightsError
from ..extras import require
from .codecs import ImageCodec
from .metrics import Array
from .run import figure, markdown

PATCH = 256
Features = Callable[[np.ndarray], np.ndarray]  # uint8 patches (N, 256, 256, 3) to features (N, D)


@dataclass(frozen=True)
class Distance:
    """The distance of one codec at one setting over all pictures; None where there are fewer than two patches."""

    codec: str
    setting: float
    patches: int
    network: str
    distance: float | None


class Moments:
    """Mean and covariance of features that arrive a few at a time."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def add(self, features: np.ndarray) -> None:
        """Features (N, D)."""
        features = features.astype(np.float64)
        self.count += len(features)
        self._sum = self._sum + features.sum(0)
        self._products = self._products + features.T @ features

    @property
    def mean(self) -> np.ndarray:
        """(D,)"""
        return np.asarray(self._sum / self.count)

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), of a sample: over count - 1."""
        mean = self.mean
        return np.asarray((self._products - self.count * np.outer(mean, mean)) / (self.count - 1))


def frechet(a: Moments, b: Moments) -> float:
    """The distance of two Gaussians; at least 0, although rounding can give less for equal ones."""
    root = _root(a.covariance)
    # Tr (S_1 S_2)^(1/2) is that of a symmetric product with the same eigenvalues.
    crossed = np.linalg.eigvalsh(root @ b.covariance @ root)
    overlap = np.sqrt(np.clip(crossed, 0, None)).sum()
    shift = ((a.mean - b.mean) ** 2).sum()
    return max(0.0, float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap))


def patches(picture: Array, size: int = PATCH) -> Iterator[Array]:
    """The patches of a picture (H, W, 3), each (size, size, 3); none where a side is shorter."""
    rows, columns = (side // size for side in picture.shape[:2])
    for start, short in ((0, 0), (size // 2, 1)):
        for row in range(rows - short):
            for column in range(columns - short):
                top, left = start + row * size, start + column * size
                yield picture[top : top + size, left : left + size]


def distances(
    codecs: Sequence[ImageCodec],
    pictures: Iterable[Array],
    features: Features,
    network: str,
    *,
    size: int = PATCH,
    progress: bool = True,
) -> list[Distance]:
    """Codes all pictures (H, W, 3) with every codec at every setting, and measures the distances."""
    original = Moments()
    decoded: dict[tuple[str, float], Moments] = {}
    with tqdm(unit="coding", desc="Frechet distance", disable=not progress) as bar:
        for picture in pictures:
            _add(original, picture, features, size)
            for codec in codecs:
                for setting in codec.settings:
                    moments = decoded.setdefault((codec.name, setting), Moments())
                    _add(moments, codec.decode(codec.encode(picture, setting)), features, size)
                    bar.update()
    return [
        Distance(name, setting, moments.count, network, frechet(original, moments) if moments.count > 1 else None)
        for (name, setting), moments in decoded.items()
    ]


def table(results: Sequence[Distance]) -> str:
    """Markdown; the head gives the network and the number of patches."""
    head = ["codec", "setting", f"Frechet distance, {results[0].network}, {results[0].patches} patches"]
    body = [[result.codec, f"{result.setting:g}", figure(result.distance, 3)] for result in results]
    return markdown(head, body)


def write(file: Path, results: Sequence[Distance]) -> None:
    """Writes a JSON list."""
    file.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")


def _add(moments: Moments, picture: Array, features: Features, size: int) -> None:
    whole_patches = list(patches(picture, size))
    if whole_patches:
        moments.add(features(np.stack(whole_patches)))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, which both were trained on
BATCH = 8
INCEPTION, VGG = "Inception v3", "VGG16"
FIRST = {"Conv2d_1a_3x3.conv.weight": INCEPTION, "features.0.weight": VGG}


def load_features(path: Path) -> tuple[str, Features]:
    """The network's name and its function.

    Raises
    ------
    WeightsError
        The file is not a safetensors file, is of another network, or lacks a tensor, which is named.
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
        raise WeightsError(f"{path} is not a safetensors file: {error}") from None


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
    """The network with its tensors; those of a classifier behind the features are ignored."""
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # counts training steps
            continue
        if name not in tensors:
            raise WeightsError(f"{path} lacks {name}")
        if tensors[name].shape != value.shape:
            actual, needed = tuple(tensors[name].shape), tuple(value.shape)
            raise WeightsError(f"{path}: {name} is {actual}, the network needs {needed}")
        value.copy_(tensors[name])
    return network.eval().requires_grad_(False)


def _function(network: Any, name: str) -> Features:
    import torch
    import torch.nn.functional as F

    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))

    @torch.inference_mode()
    def features(patches: np.ndarray) -> np.ndarray:
        rows = []
        for start in range(0, len(patches), BATCH):
            x = torch.from_numpy(patches[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            if name == INCEPTION:
                x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False, antialias=True)
            rows.append(network((x - mean) / deviation))
        return torch.cat(rows).numpy()

    return features
