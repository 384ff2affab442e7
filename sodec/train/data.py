"""Training pictures: every picture of a folder of tar shards (or files), decoded once, then cropped at random."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import TrainingError

SUFFIXES = {".avif", ".png", ".jpg", ".jpeg", ".webp"}


def load_pictures(folder: Path, cache: Path, exclude: frozenset[str] = frozenset()) -> list[np.ndarray]:
    """All pictures of at least 128x128 under `folder` as uint8 (H, W, 3) views of one memory-mapped file.

    The decoded pixels are kept in `cache`; delete it when the folder or `exclude` (names left out) changes.
    """
    index, pixels = cache / "index.npy", cache / "pixels.u8"
    if not index.exists():
        cache.mkdir(parents=True, exist_ok=True)
        sizes = []
        with open(pixels, "wb") as out:
            for name, data in _files(folder):
                if name in exclude:
                    continue
                picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                if min(picture.shape[:2]) >= 128:
                    sizes.append(picture.shape[:2])
                    picture.tofile(out)
        if not sizes:
            raise TrainingError(f"no pictures of 128x128 or more in {folder}")
        np.save(index, np.array(sizes))
    flat = np.memmap(pixels, np.uint8, "r")
    pictures, start = [], 0
    for height, width in np.load(index):
        pictures.append(flat[start : start + height * width * 3].reshape(height, width, 3))
        start += height * width * 3
    return pictures


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]
        elif path.suffix.lower() in SUFFIXES:
            yield path.name, path.read_bytes()


class Crops:
    """Random square crops, flipped at random, pictures drawn by their area. The generator's state resumes."""

    def __init__(self, pictures: list[np.ndarray], seed: int) -> None:
        self.pictures = pictures
        area = np.array([p.shape[0] * p.shape[1] for p in pictures], float)
        self.chance = area / area.sum()
        self.random = np.random.default_rng(seed)

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, size, size) in 0..1, channels_last."""
        out = np.empty((count, size, size, 3), np.uint8)
        for i in range(count):
            picture = self.pictures[self.random.choice(len(self.pictures), p=self.chance)]
            height, width = picture.shape[:2]
            side = min(size, height, width)
            top, left = self.random.integers(0, [height - side + 1, width - side + 1])
            crop = picture[top : top + side, left : left + side]
            if side < size:
                crop = np.pad(crop, ((0, size - side), (0, size - side), (0, 0)), "edge")
            out[i] = crop[:, ::-1] if self.random.random() < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255
