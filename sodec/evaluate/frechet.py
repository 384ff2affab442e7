"""Frechet distance between features of patches: are decoded pictures drawn as photographs are?

    d = |mu_1 - mu_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)),   mu, S mean and covariance of the features

Patches are taken as HiFiC takes them (Mentzer et al., NeurIPS 2020): 256x256, every whole one of the grid at the
corner, and of a second grid that begins half a patch further down and right and is one patch shorter each way. The
distance falls with the number of patches, so only equal numbers compare, and it depends on the network: both are told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .codecs import ImageCodec
from .metrics import Array
from .run import markdown

PATCH = 256
Features = Callable[[np.ndarray], np.ndarray]  # uint8 patches (N, 256, 256, 3) to features (N, D)


@dataclass(frozen=True)
class Distance:
    """Of one codec at one setting, over all pictures. None where there are fewer than two patches."""

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
    """The distance of two Gaussians. Never below 0, which rounding could make of equal ones."""
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
    """Every codec at every setting over all pictures (H, W, 3), which are coded once more for this."""
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


def table(found: Sequence[Distance]) -> str:
    """Markdown, the number of patches and the network in its head."""
    head = ["codec", "setting", f"Frechet distance, {found[0].network}, {found[0].patches} patches"]
    body = [[one.codec, f"{one.setting:g}", "–" if one.distance is None else f"{one.distance:.3f}"] for one in found]
    return markdown(head, body)


def write(file: Path, found: Sequence[Distance]) -> None:
    """As JSON, a list."""
    file.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")


def _add(moments: Moments, picture: Array, features: Features, size: int) -> None:
    found = list(patches(picture, size))
    if found:
        moments.add(features(np.stack(found)))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
