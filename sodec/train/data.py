"""Training pictures: every picture of a folder of tar shards (or files), decoded once, then cropped at random."""

from __future__ import annotations

import io
import tarfile
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import TrainingError

SUFFIXES = {".avif", ".bmp", ".jpg", ".jpeg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
REDUCED = 0.2  # share of crops taken 1.25 to 2 times as large and reduced: other scales of the same things


def load_pictures(folder: Path, cache: Path, exclude: frozenset[str] = frozenset()) -> list[np.ndarray]:
    """All pictures of at least 128x128 under `folder` as uint8 (H, W, 3) views of one memory-mapped file.

    The decoded pixels are kept in `cache`; delete it when the folder or `exclude` (names left out) changes.
    Files that can't be decoded are left out with one warning that counts them. Raises `TrainingError` where the folder
    can't be read or has no picture.
    """
    index, pixels = cache / "index.npy", cache / "pixels.u8"
    if not index.exists():
        cache.mkdir(parents=True, exist_ok=True)
        sizes, bad = [], []
        with open(pixels, "wb") as out:
            for name, data in _files(folder):
                if name in exclude:
                    continue
                try:
                    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                except Exception:  # decoders of damaged files raise whatever they like
                    bad.append(name)
                    continue
                if min(picture.shape[:2]) >= 128:
                    sizes.append(picture.shape[:2])
                    picture.tofile(out)
        if bad:
            warnings.warn(f"{len(bad)} files of {folder} can't be decoded, as {bad[0]}; left out", stacklevel=2)
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
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise TrainingError(f"data folder {folder} can't be read: {error.strerror}") from None
    for path in paths:
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]
        elif path.suffix.lower() in SUFFIXES:
            yield path.name, path.read_bytes()


class Crop(NamedTuple):
    """A square of a picture."""

    picture: np.ndarray
    top: int
    left: int
    side: int  # before it is reduced
    flipped: bool


class Crops:
    """Random square crops, flipped and reduced at random, pictures drawn by their area. Its state resumes."""

    def __init__(self, pictures: list[np.ndarray], seed: int) -> None:
        self.pictures = pictures
        area = np.array([p.shape[0] * p.shape[1] for p in pictures], float)
        self.chance = area / area.sum()
        self.random = np.random.default_rng(seed)

    def draw(self, count: int, size: int) -> tuple[list[Crop], int]:
        """`count` crops and the side of all of them: `size`, or up to 48 less, but at least 64.

        In steps of 16: the lower levels of the networks have to be padded for most pictures, and a model that saw
        multiples of 64 alone left their last columns 6 grey levels too bright.
        """
        sides = range(max(min(64, size), size - 48), size + 1, 16)
        size = sides[self.random.integers(len(sides))]
        crops = []
        for picture in self.random.choice(len(self.pictures), count, p=self.chance):
            height, width = self.pictures[picture].shape[:2]
            wanted = round(size * self.random.uniform(1.25, 2)) if self.random.random() < REDUCED else size
            side = min(wanted, height, width)
            top, left = self.random.integers(0, [height - side + 1, width - side + 1])
            crops.append(Crop(self.pictures[picture], top, left, side, self.random.random() < 0.5))
        return crops, size

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, side, side) uint8, channels_last; see `draw`."""
        return cut(*self.draw(count, size))


def cut(crops: list[Crop], size: int) -> Tensor:
    """The pixels of crops, each reduced or padded to size x size: (count, 3, size, size) uint8, channels_last.

    By NumPy: torch would bring threads of its own for the thread that does it, and with more of them than cores OpenMP
    stops to spin at its barriers: a step of the finish took 0.78 s in place of 0.52.
    """
    out = np.empty((len(crops), size, size, 3), np.uint8)
    for i, (picture, top, left, side, flipped) in enumerate(crops):
        crop = picture[top : top + side, left : left + side]
        if side > size:
            crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))
        elif side < size:
            crop = np.pad(crop, ((0, size - side), (0, size - side), (0, 0)), "edge")
        out[i] = crop[:, ::-1] if flipped else crop
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class Ahead:
    """Batches made by threads before they are asked for, two ahead of each thread.

    `state` is of the generator as the last batch taken left it: drawing is in order, whatever the threads do.
    `pinned` puts the pixels where a GPU fetches them by itself.
    """

    def __init__(self, crops: Crops, count: int, size: int, threads: int = 1, pinned: bool = False) -> None:
        self.state: Any = crops.random.bit_generator.state
        self._crops, self._count, self._size, self._pinned = crops, count, size, pinned
        self._pool = ThreadPoolExecutor(threads, "sodec-crops")
        self._ready: deque[tuple[Future[Tensor], Any]] = deque()
        for _ in range(2 * threads):
            self._ask()

    def _ask(self) -> None:
        crops, size = self._crops.draw(self._count, self._size)
        self._ready.append((self._pool.submit(self._cut, crops, size), self._crops.random.bit_generator.state))

    def _cut(self, crops: list[Crop], size: int) -> Tensor:
        pixels = cut(crops, size)
        return pixels.pin_memory() if self._pinned else pixels

    def take(self) -> Tensor:
        """The next batch: (count, 3, side, side) uint8."""
        future, state = self._ready.popleft()
        pixels = future.result()
        self.state = state
        self._ask()
        return pixels

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)
