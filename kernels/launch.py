"""Launch configurations: pinned per architecture in launch_configs.json, and a fixed rule for the rest.

Nothing is timed at run time: a timed choice could differ from run to run, and with it the order of a sum.
An architecture that the file does not list gets its "default" section, sized to fit 96 KiB of shared memory
(what the smallest GPUs of compute capability 8.0 and newer have); kernels run by the interpreter get
"interpreter", small tiles so that small tests still have several programs and masked edges.

`wins` names the architectures on which a kernel was measured to beat what PyTorch runs in its place (eager, or its
fused attention) at every shape that it serves, and by more than a launch from Python costs. `wins_in_graphs` names
those on which it wins by less, so that it pays only where CUDA graphs replay the launch. Figures: docs/latency.md.
"""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError
from .legality import capability

VERSION = 2


@cache
def table() -> dict[str, Any]:
    """The file's content; another version of it is a `DeviceError`."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("launch_configs.json").read_text(encoding="utf-8"))
    if content.get("version") != VERSION:
        raise DeviceError(f"launch_configs.json has version {content.get('version')}, this code reads {VERSION}")
    return content


def architecture(device: torch.device) -> str:
    """The name of a device's section: "sm90" for compute capability 9.0, "interpreter" for a CPU."""
    return "sm{}{}".format(*capability(device.index or 0)) if device.type == "cuda" else "interpreter"


def config(name: str, x: Tensor) -> dict[str, int]:
    """Tile sizes (capitals) and num_warps, num_stages of a kernel, by architecture and width of the dtype in bits."""
    sections = table()["configs"]
    section = sections.get(architecture(x.device), sections["default"])
    sizes: dict[str, int] = section[name][str(8 * x.element_size())]
    return dict(sizes)


def won(name: str, device: torch.device, in_graphs: bool = False) -> bool:
    """Whether the kernel was measured to win on this architecture, `in_graphs` where launches cost nothing."""
    content = table()
    winners = content["wins"].get(name, []) + (content["wins_in_graphs"].get(name, []) if in_graphs else [])
    return architecture(device) in winners


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, so make it the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def blocks(size: int, block: int) -> int:
    """How many blocks cover a size."""
    return -(-size // block)


def unit(width: int) -> int:
    """1, 2, 4 or 8, the largest that divides a width. Kernels take the width in units: the compiler sees from a factor
    what addresses are multiples of, and so how wide a load may be (of arguments only whether 16 divides them)."""
    return math.gcd(width, 8)


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that holds a size; matrix units want at least 16."""
    return max(least, 1 << (size - 1).bit_length())
