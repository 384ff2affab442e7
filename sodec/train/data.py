"""Training pictures: all pictures of a folder of files or tar shards, decoded once, then cropped at random.

Crops are cut by threads (`Ahead`), or on the device itself where all pictures fit into its memory (`OnDevice`).
"""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import TrainingError
from ..picture import suffixes

Value = TypeVar("Value")
Result = TypeVar("Result")

CUTTERS = 8  # threads that cut crops for a GPU; each cuts about 500 of up to 192x192 a second
REDUCED = 0.2  # share of crops that are cut 1.25 to 2 times as large and then reduced, to show other scales


def load_pictures(folder: Path, cache: Path, exclude: frozenset[str] = frozenset()) -> list[np.ndarray]:
    """All pictures of at least 128x128 in `folder`, as uint8 (H, W, 3) views of one memory-mapped file.

    The decoded pixels are kept in `cache`: delete it when the folder changes, or `exclude`, the names to leave out.
    Files that can't be decoded are left out, with one warning that counts them.

    Raises
    ------
    TrainingError
        The folder can't be read or has no picture that is large enough.
    """
    index, pixels = cache / "index.npy", cache / "pixels.u8"
    if not index.exists():
        cache.mkdir(parents=True, exist_ok=True)
        sizes, undecodable = [], []
        with open(pixels, "wb") as out:
            wanted = (file for file in _files(folder) if file[0] not in exclude)
            for name, picture in _in_threads(_decoded, wanted):
                if picture is None:
                    undecodable.append(name)
                elif min(picture.shape[:2]) >= 128:
                    sizes.append(picture.shape[:2])
                    picture.tofile(out)
        if undecodable:
            message = f"{len(undecodable)} files of {folder} can't be decoded and are left out, as {undecodable[0]}"
            warnings.warn(message, stacklevel=2)
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
                    if member.isfile() and Path(member.name).suffix.lower() in suffixes():
                        yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]
        elif path.suffix.lower() in suffixes():
            yield path.name, path.read_bytes()


def _decoded(file: tuple[str, bytes]) -> tuple[str, np.ndarray | None]:
    """The name of a file and its pixels, uint8 (H, W, 3), or None."""
    name, data = file
    try:
        return name, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception:  # decoders raise errors of every kind on damaged files
        return name, None


def _in_threads(function: Callable[[Value], Result], values: Iterator[Value]) -> Iterator[Result]:
    """`map` by a thread for each core, in order, with no more results waiting than there are threads, twice."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Crop(NamedTuple):
    """A square of a picture."""

    picture: Any  # uint8 (H, W, 3), an array or a tensor
    top: int
    left: int
    side: int  # in the picture, before the crop is reduced
    flipped: bool


class Crops:
    """Draws square crops, some flipped and some reduced, from pictures with a probability in proportion to area.

    A run resumes by the state of `random`.
    """

    def __init__(self, pictures: list[Any], seed: int) -> None:
        self.pictures = pictures
        area = np.array([p.shape[0] * p.shape[1] for p in pictures], float)
        self.probabilities = area / area.sum()
        self.random = np.random.default_rng(seed)

    def draw(self, count: int, size: int) -> tuple[list[Crop], int]:
        """`count` crops, and the side that all of them get: `size` or up to 48 less in steps of 16, but at least 64.

        Most pictures are padded for the lower levels of the networks. A model that had only seen multiples of 64 left
        the last columns of such pictures 6 grey levels too bright.
        """
        sides = range(max(min(64, size), size - 48), size + 1, 16)
        size = sides[self.random.integers(len(sides))]
        crops = []
        for picture in self.random.choice(len(self.pictures), count, p=self.probabilities):
            height, width = self.pictures[picture].shape[:2]
            whole = round(size * self.random.uniform(1.25, 2)) if self.random.random() < REDUCED else size
            side = min(whole, height, width)
            top, left = self.random.integers(0, [height - side + 1, width - side + 1])
            crops.append(Crop(self.pictures[picture], top, left, side, self.random.random() < 0.5))
        return crops, size

    def batch(self, count: int, size: int) -> Tensor:
        """(count, 3, side, side) uint8, channels_last; see `draw`."""
        return cut(*self.draw(count, size))


def cut(crops: list[Crop], size: int) -> Tensor:
    """The pixels of crops, each reduced or padded to size x size: (count, 3, size, size) uint8, channels_last.

    By NumPy, because torch would start OpenMP threads in the calling thread. With more threads than cores OpenMP no
    longer spins at its barriers: a step of the stage "finish" took 0.78 s instead of 0.52 s.
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
    """Batches that threads cut in advance, two per thread.

    `state` is that of the generator after the last batch that was taken: crops are drawn in order, whatever the threads
    do. `pinned` puts the pixels into pinned memory, from which a GPU copies them without waiting.
    """

    def __init__(self, crops: Crops, count: int, size: int, threads: int = 1, pinned: bool = False) -> None:
        self.state: Any = crops.random.bit_generator.state
        self._crops, self._count, self._size, self._pinned = crops, count, size, pinned
        self._pool = ThreadPoolExecutor(threads, "sodec-crops")
        self._queue: deque[tuple[Future[Tensor], Any]] = deque()
        for _ in range(2 * threads):
            self._draw()

    def _draw(self) -> None:
        crops, size = self._crops.draw(self._count, self._size)
        self._queue.append((self._pool.submit(self._cut, crops, size), self._crops.random.bit_generator.state))

    def _cut(self, crops: list[Crop], size: int) -> Tensor:
        pixels = cut(crops, size)
        return pixels.pin_memory() if self._pinned else pixels

    def take(self) -> Tensor:
        """The next batch: (count, 3, side, side) uint8."""
        future, state = self._queue.popleft()
        pixels = future.result()
        self.state = state
        self._draw()
        return pixels

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)


class OnDevice:
    """`Ahead` where all pictures are in the memory of a GPU, which cuts the crops itself."""

    def __init__(self, crops: Crops, count: int, size: int, device: torch.device) -> None:
        crops.pictures = [torch.tensor(picture, device=device) for picture in crops.pictures]
        self._crops, self._count, self._size = crops, count, size

    @property
    def state(self) -> Any:
        """Of the generator."""
        return self._crops.random.bit_generator.state

    def take(self) -> Tensor:
        """The next batch: (count, 3, side, side) uint8, channels_last."""
        return cut_on_device(*self._crops.draw(self._count, self._size))

    def close(self) -> None:
        """There is nothing to end."""


class Batches(Protocol):
    """`Ahead` or `OnDevice`."""

    @property
    def state(self) -> Any:
        """Of the generator of crops after the last batch."""

    def take(self) -> Tensor:
        """The next batch: (count, 3, side, side) uint8."""

    def close(self) -> None:
        """Ends what was begun."""


def batches(crops: Crops, count: int, size: int, device: torch.device) -> Batches:
    """Batches for a device: cut there if all pictures take at most half of its free memory, else by threads."""
    if device.type != "cuda":
        return Ahead(crops, count, size)
    free, _ = torch.cuda.mem_get_info(device)
    if 2 * sum(picture.nbytes for picture in crops.pictures) <= free:
        return OnDevice(crops, count, size, device)
    return Ahead(crops, count, size, threads=CUTTERS, pinned=True)


def cut_on_device(crops: list[Crop], size: int) -> Tensor:
    """`cut` by torch, where the pictures are; it reduces by a bicubic filter."""
    out = []
    for picture, top, left, side, flipped in crops:
        crop = picture[top : top + side, left : left + side].permute(2, 0, 1)[None]
        if side > size:
            reduced = F.interpolate(crop.float(), (size, size), mode="bicubic", antialias=True)
            crop = reduced.round_().clamp_(0, 255).to(torch.uint8)
        elif side < size:
            crop = F.pad(crop.float(), (0, size - side, 0, size - side), "replicate").to(torch.uint8)
        out.append(crop.flip(3) if flipped else crop)
    return torch.cat(out).contiguous(memory_format=torch.channels_last)
