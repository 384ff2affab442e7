"""What memory this process can still take, and errors where it does not suffice. Imports no torch.

The least of what the machine has available, of what the control groups that the process is in leave it (a container's
limit: who goes beyond is killed without a word), and of the limit on its addresses (`ulimit -v`).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import DeviceError, SodecError

PROC = Path("/proc")
# Of the libraries' sizes on disk, what torch maps of them and what it writes to, and what it takes beside: measured
# with torch 2.14 for CUDA, whose 4.0 GB of files take 3.2 GB of addresses (3.4 with a picture decoded) and 0.29 GB of
# memory that can't be given back.
SHARE_MAPPED, BESIDE = 0.75, 300_000_000
SHARE_WRITTEN, WRITTEN_BESIDE = 0.05, 110_000_000
SHORT = 2_000_000_000  # bytes; with less, freed memory is given back to the system at once
# Of glibc's mallopt: from what size on memory is mapped by itself, at most 32 MB, and from how much free memory at the
# end of the heap on that goes back to the system.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
MAPPED_FROM, MAPPED_FROM_PLENTY, KEPT = 1 << 20, 1 << 25, 1 << 28
LITTLE = 20_000_000  # bytes: less than the networks take for the smallest picture, which is checked apart
PLENTY = 1_000_000_000  # bytes of memory with which no library's size is looked up
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "could not create a memory", "bad allocation",
                 "could not create a primitive", "can't start new thread", "Cannot allocate memory",
                 "failed to map segment", "Failed to allocate memory", "Available memory of",
                 "STATUS_ALLOC_FAILED")  # fmt: skip

DEVICE_FAILED = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "cuFFT error",
                 "NVML_SUCCESS", "HIP error", "hipErr", "MIOpen Error", "XPU", "device-side assert")  # fmt: skip


class GroupFiles(NamedTuple):
    """Where one control group says how much memory it allows and has taken."""

    limit: Path
    usage: Path
    statistics: Path
    reclaimable: str  # the name in `statistics` of what is given back when memory is needed


def free() -> int | None:
    """Bytes that this process can still take; None where nothing tells. Where that is little, see `be_frugal`."""
    known = [size for size in (_of_machine(), _of_groups(), _of_addresses()) if size is not None]
    left = max(0, min(known)) if known else None
    if left is not None and left < SHORT:
        be_frugal()
    return left


def check(needed: int, what: str, advice: str) -> None:
    """`DeviceError` where `what` takes more bytes than are free. To ask takes 0.2 ms, so little is not asked for."""
    left = free() if needed > LITTLE else None
    if left is not None and needed > left:
        raise DeviceError(f"{what} takes {gigabytes(needed)}; {gigabytes(left)} of memory are free: {advice}")


def be_frugal() -> None:
    """From now on, large pieces of memory go back to the system as soon as they are freed.

    glibc keeps them, in sizes that the next tile's tensors don't fit: on 24 megapixels in float32 a process grew by
    0.46 GB, and by 0.22 with this. It takes a fifth more time, so `free` does it only where it finds less than `SHORT`.
    """
    if (mallopt := _mallopt()) is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        mallopt(M_TRIM_THRESHOLD, MAPPED_FROM)


def keep_freed() -> None:
    """From now on, up to `KEPT` bytes of freed memory are kept for what comes next, where there is plenty.

    glibc gives the end of its heap back after every tensor, and the system then clears each page again: of a decode of
    1920x1080 on one core that was 28 ms of 568.
    """
    left = free()
    if left is not None and left >= SHORT and (mallopt := _mallopt()) is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_PLENTY)
        mallopt(M_TRIM_THRESHOLD, KEPT)


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    """Of glibc; None elsewhere."""
    try:
        return getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    except OSError:
        return None


def check_for_torch() -> None:
    """`DeviceError` where there is too little memory, or too few addresses, to import torch: that ends the process."""
    if "torch" in sys.modules:
        return
    addresses = _of_addresses()
    known = [size for size in (_of_machine(), _of_groups()) if size is not None]
    left = max(0, min(known, default=PLENTY))
    if (addresses is None and left >= PLENTY) or (size := _torch_on_disk()) is None:
        return
    if addresses is not None and (needed := round(SHARE_MAPPED * size) + BESIDE) > addresses:
        raise DeviceError(
            f"torch takes about {gigabytes(needed)} of addresses; the limit of this process (ulimit -v) leaves "
            f"{gigabytes(addresses)}: raise it, or install torch without CUDA, which takes less"
        )
    if (needed := round(SHARE_WRITTEN * size) + WRITTEN_BESIDE) > left:
        raise DeviceError(
            f"importing torch takes about {gigabytes(needed)}; {gigabytes(left)} of memory are free: a machine or "
            "container with more memory, or torch without CUDA, which takes less"
        )


def _torch_on_disk() -> int | None:
    """Bytes of torch's libraries; None where it is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    places = (folder / "lib", folder.parent / "nvidia")
    return sum(path.stat().st_size for place in places for path in place.rglob("*.so*"))


@contextmanager
def errors_named() -> Iterator[None]:
    """Makes whatever kind of error says that memory has run out, or that the device has failed, a `DeviceError` with
    what to do. Also a decorator.
    """
    try:
        yield
    except SodecError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            if not is_of_device(error):
                raise
            raise DeviceError(
                f"the device failed or was lost: {str(error).splitlines()[0]}; this process may not be able to use it "
                "again, so start another, or use device='cpu' (--device cpu)"
            ) from error
        left = free()
        text = "" if left is None else f" ({gigabytes(left)} are free)"
        raise DeviceError(
            f"the memory does not suffice{text}: a smaller tile (tile=, --tile), a region or a scale takes less, as do "
            "fewer pictures or workers at once"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory has run out, as Python, torch, oneDNN or the loader of libraries say it."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def is_of_device(error: BaseException) -> bool:
    """Whether the error says that a device or a library on it has failed, as torch says it."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "AcceleratorError" or any(words in text for words in DEVICE_FAILED)
    )


def gigabytes(size: float) -> str:
    """For people."""
    return f"{size / 1e9:.2f} GB"


def _of_machine() -> int | None:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _of_addresses() -> int | None:
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        return limit - int((PROC / "self" / "statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return None


def _of_groups() -> int | None:
    """The least that any control group with a limit leaves."""
    left = [_left_in(files) for files in _group_files()]
    return min((size for size in left if size is not None), default=None)


def _left_in(files: GroupFiles) -> int | None:
    try:
        limit = int(files.limit.read_text())  # "max" is none
        usage = int(files.usage.read_text())
        rows = dict(line.split() for line in files.statistics.read_text().splitlines())
    except (OSError, ValueError):
        return None
    return limit - usage + int(rows.get(files.reclaimable, 0))


@functools.lru_cache(maxsize=1)
def _group_files() -> tuple[GroupFiles, ...]:
    """Of the group of this process and those around it, of version 2 and of version 1."""
    try:
        groups = (PROC / "self" / "cgroup").read_text().splitlines()
        mounts = (PROC / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return ()
    paths: dict[str, PurePosixPath] = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            paths["cgroup"] = PurePosixPath(path)
    files: list[GroupFiles] = []
    for line in mounts:
        fields, _, kinds = line.partition(" - ")
        kind, _, options = kinds.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(" ")[-1].split(",")):
            continue
        root, mounted = fields.split(" ")[3:5]
        # In a container the group's path may begin at another root than that of the mount.
        group = paths[kind]
        inside = group.relative_to(root if group.is_relative_to(root) else "/")
        for folder in (Path(mounted, inside), *Path(mounted, inside).parents):
            if folder.is_relative_to(mounted):
                files.append(_files_in(folder, kind))
    return tuple(group for group in files if group.limit.exists())


def _files_in(folder: Path, kind: str) -> GroupFiles:
    if kind == "cgroup2":
        return GroupFiles(folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file")
    return GroupFiles(
        folder / "memory.limit_in_bytes",
        folder / "memory.usage_in_bytes",
        folder / "memory.stat",
        "total_inactive_file",
    )
