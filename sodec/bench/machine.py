"""What a figure was measured on: the machine, which every report names, and the picture."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..files import PHOTO


@dataclass(frozen=True)
class Machine:
    """The hardware and software of a run."""

    hardware: str  # of the device that ran the networks
    processor: str
    cores: int  # that this process may use
    threads: int  # of torch
    device: str
    dtype: str
    torch: str
    python: str
    system: str
    cuda: str | None
    gpu_memory_bytes: int | None

    def __str__(self) -> str:
        threads = f", {self.threads} of {self.cores} cores" if self.device == "cpu" else f", CUDA {self.cuda}"
        return f"{self.hardware}{threads}, {self.dtype}, torch {self.torch}, Python {self.python}, {self.system}"


def describe(device: torch.device, dtype: torch.dtype) -> Machine:
    """This machine, running networks of `dtype` on `device`."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return Machine(
        hardware=gpu.name if gpu else processor(),
        processor=processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cuda=torch.version.cuda if gpu else None,
        gpu_memory_bytes=gpu.total_memory if gpu else None,
    )


def processor() -> str:
    """The processor's name, as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def scene(width: int, height: int) -> np.ndarray:
    """The bundled photo, continued by mirroring, uint8 (height, width, 3): the coder gets a photograph's symbols.

    Times then do not depend on which pictures a user has.
    """
    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB"))
    missing = (max(0, height - photo.shape[0]), max(0, width - photo.shape[1]))
    return np.ascontiguousarray(np.pad(photo, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")[:height, :width])
