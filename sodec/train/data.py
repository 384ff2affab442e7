"""Training pictures: every picture of a folder of tar shards (or files), decoded once, then cropped at random."""

from __future__ import annotations

import contextlib
import io
import queue
import tarfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class Crops:
    """Random square crops, flipped and reduced at random, pictures drawn by their area. Its state resumes."""

    def __init__(self, pictures: list[np.ndarray], seed: int) -> None:
        self.pictures = pictures
        area = np.array([p.shape[0] * p.shape[1] for p in pictures], float)
        self.chance = area / area.sum()
        self.random = np.random.default_rng(seed)

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, side, side) in 0..1, channels_last. The side is `size`, or up to 48 less, but at least 64.

        So all are of one batch, in steps of 16: the lower levels of the networks have to be padded for most pictures,
        and a model that saw multiples of 64 alone left their last columns 6 grey levels too bright.
        """
        sides = range(max(min(64, size), size - 48), size + 1, 16)
        size = sides[self.random.integers(len(sides))]
        out = np.empty((count, size, size, 3), np.uint8)
        for i in range(count):
            picture = self.pictures[self.random.choice(len(self.pictures), p=self.chance)]
            height, width = picture.shape[:2]
            wanted = round(size * self.random.uniform(1.25, 2)) if self.random.random() < REDUCED else size
            side = min(wanted, height, width)
            top, left = self.random.integers(0, [height - side + 1, width - side + 1])
            crop = picture[top : top + side, left : left + side]
            if side > size:
                crop = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS))
            elif side < size:
                crop = np.pad(crop, ((0, size - side), (0, size - side), (0, 0)), "edge")
            out[i] = crop[:, ::-1] if self.random.random() < 0.5 else crop
        # By NumPy: torch would bring threads of its own for this thread, and with more of them than cores OpenMP stops
        # to spin at its barriers: a step of the finish took 0.78 s in place of 0.52.
        return torch.from_numpy(out.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)


class Ahead:
    """Batches made by a thread before they are asked for. `state` is of the generator as the last one taken left it."""

    def __init__(self, crops: Crops, count: int, size: int, depth: int = 2) -> None:
        self.state: Any = crops.random.bit_generator.state
        self._ready: queue.Queue[tuple[Tensor | None, Any]] = queue.Queue(depth)
        self._ended = threading.Event()

        def work() -> None:
            while not self._ended.is_set():
                try:
                    item: tuple[Tensor | None, Any] = (crops.batch(count, size), crops.random.bit_generator.state)
                except BaseException as error:  # raised again where the batch is taken
                    item = (None, error)
                self._ready.put(item)

        self._thread = threading.Thread(target=work, daemon=True, name="sodec-crops")
        self._thread.start()

    def take(self) -> Tensor:
        """The next batch: (count, 3, size, size) in 0..1."""
        batch, state = self._ready.get()
        if batch is None:
            raise state
        self.state = state
        return batch

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
