"""From a folder of weights to a model on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DeviceError, WeightsError
from ..weights import Bundle
from .config import ModelConfig
from .model import SodecModel
from .prepare import Prepared, prepare

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(bundle: Bundle, device: torch.device, dtype: torch.dtype) -> Prepared:
    """The model, ready to run: frozen and specialised by `prepare`. Raises as `read_model`."""
    return prepare(read_model(bundle), device, dtype)


def read_model(bundle: Bundle) -> SodecModel:
    """The model as it was trained, in float32, on the CPU if it is read from files.

    `WeightsError` names tensors that are missing or misfit.
    """
    if (made := bundle.made()) is not None:
        return made
    config = ModelConfig.from_dict(dict(bundle.config))
    model = empty(config)
    del model.scale_network  # its integers run in the native module
    arrays = bundle.tensors()
    fill(model, {name: torch.from_numpy(arrays.pop(name).astype(np.float32)) for name in list(arrays)}, bundle.folder)
    return model


def fill(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Gives `model` these tensors. `WeightsError` names `source` and what is missing, left over or of another shape."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if missing := sorted(expected.keys() - tensors.keys()):
        raise WeightsError(f"{source} lacks {len(missing)} tensors, the first is {missing[0]!r}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise WeightsError(f"{source} has {len(unknown)} tensors that the model does not, as {unknown[0]!r}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise WeightsError(f"{source}: {name} is {tuple(tensor.shape)}, the model needs {expected[name]}")
    model.load_state_dict(tensors, assign=True)


def empty(config: ModelConfig) -> SodecModel:
    """The model, its weights to be replaced."""
    if config.sizes is not None:
        with torch.device("meta"):
            return SodecModel(config)
    # On the device "meta" nothing would be drawn, but its first use imports 1.5 s of torch, and drawing lite's weights
    # takes 0.15 s. The caller's random state stays as it was.
    with torch.random.fork_rng(devices=[]):
        return SodecModel(config)


def resolve_device(name: str) -> torch.device:
    """`DeviceError` where torch does not know the name or the machine has no such device."""
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"device {name!r}: torch {torch.__version__} sees no CUDA GPU here")
        torch.empty(1, device=device)
    except DeviceError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device {name!r} can't be used: {str(error).splitlines()[0]}") from None
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of this name; "auto" takes bfloat16 where `device` multiplies it natively. Else `DeviceError`."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"dtype {name!r} is none of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        from .. import _native

        # Where it is emulated it is slow: convolutions ran at 16 GFLOP/s against 112 in float32 (two Zen 3 cores).
        return bool(_native.cpu()["bfloat16"])
    return False
