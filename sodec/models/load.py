"""From a folder of weights to a model on a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DeviceError, WeightsError
from ..weights import Bundle
from ..weights.bundle import DESCRIPTION
from .config import ModelConfig
from .model import SodecModel
from .prepare import Prepared, prepare

# Models of lite's architecture beyond these are first built without memory and compared with the tensors in the files,
# since model.json could ask for any size. At both limits everywhere, building takes 2 GB.
MAX_WIDTH_AT_ONCE, MAX_DEPTH_AT_ONCE = 384, 16
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
    try:
        config = ModelConfig.from_dict(dict(bundle.config))
        if config.sizes is None and (config.widest > MAX_WIDTH_AT_ONCE or config.deepest > MAX_DEPTH_AT_ONCE):
            with torch.device("meta"):
                without_memory = _built(config)
            del without_memory.scale_network
            check_shapes(without_memory, bundle.shapes(), bundle.folder)
        model = empty(config)
    except WeightsError as error:
        text = str(error)
        raise WeightsError(text if str(bundle.folder) in text else f"{bundle.folder / DESCRIPTION}: {text}") from None
    del model.scale_network  # its integers run in the native module
    arrays = bundle.tensors()
    fill(model, {name: torch.from_numpy(arrays.pop(name).astype(np.float32)) for name in list(arrays)}, bundle.folder)
    return model


def fill(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Gives `model` these tensors. Raises as `check_shapes`."""
    check_shapes(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    model.load_state_dict(tensors, assign=True)


def check_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """`WeightsError` names `source` and what tensor is missing, left over or of another shape."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if missing := sorted(expected.keys() - shapes.keys()):
        raise WeightsError(f"{source} lacks {len(missing)} tensors, the first is {missing[0]!r}")
    if unknown := sorted(shapes.keys() - expected.keys()):
        raise WeightsError(f"{source} has {len(unknown)} tensors that the model does not, as {unknown[0]!r}")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise WeightsError(f"{source}: {name} is {shape}, the model needs {expected[name]}")


def empty(config: ModelConfig) -> SodecModel:
    """The model, its weights to be replaced. `WeightsError` where none can have these sizes."""
    if config.sizes is not None:
        with torch.device("meta"):
            return _built(config)
    # On the device "meta" nothing would be drawn, but its first use imports 1.5 s of torch, and drawing lite's weights
    # takes 0.15 s. The caller's random state stays as it was.
    with torch.random.fork_rng(devices=[]):
        return _built(config)


def _built(config: ModelConfig) -> SodecModel:
    try:
        return SodecModel(config)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"no model of {config.name!r} has these sizes: {error}") from None


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
