"""Which engine runs a model: PyTorch, or ONNX Runtime alone. Nothing of either is imported before it is chosen."""

from __future__ import annotations

import importlib.util

from ..errors import DeviceError, MissingPackageError, WeightsError
from ..weights import Bundle, graphs
from .engine import Engine
from .tiles import TILE

ENGINES = ("auto", "torch", "onnx")
ONNX_DEVICES, ONNX_DTYPES = ("cpu",), ("auto", "float32")


def make_engine(
    bundle: Bundle,
    *,
    engine: str,
    device: str,
    dtype: str,
    tile: int | None,
    threads: int | None,
    cuda_graphs: bool | None,
) -> Engine:
    """The engine of this name, or by "auto" the one that `chosen` names. Arguments are those of `Codec`.

    Raises
    ------
    DeviceError
        No such engine, or none of its devices and dtypes.
    MissingPackageError
        The engine is not installed.
    WeightsError
        As the engines say.
    """
    if engine not in ENGINES:
        raise DeviceError(f"engine must be one of {', '.join(ENGINES)} (got {engine!r})")
    if engine == "auto":
        engine = chosen(bundle, device, dtype, cuda_graphs)
    if engine == "onnx":
        from .onnx_engine import OnnxEngine

        if device not in ONNX_DEVICES:
            raise DeviceError(f"device must be {', '.join(ONNX_DEVICES)} with engine 'onnx' (got {device!r})")
        if dtype not in ONNX_DTYPES:
            raise DeviceError(f"dtype must be one of {', '.join(ONNX_DTYPES)} with engine 'onnx' (got {dtype!r})")
        if cuda_graphs:
            raise DeviceError("cuda_graphs needs a CUDA device, and engine 'torch'")
        return OnnxEngine(bundle, tile=tile or TILE, threads=threads)
    if not has_torch():
        reason = _only_torch(bundle, device, dtype, cuda_graphs) or "engine 'torch'"
        raise MissingPackageError(f"{reason} needs PyTorch: pip install 'sodec[torch]'")
    from ..memory import check_for_torch

    check_for_torch()
    from .torch_engine import prepared_engine

    return prepared_engine(bundle, device, dtype, tile=tile, threads=threads, cuda_graphs=cuda_graphs)


def chosen(bundle: Bundle, device: str, dtype: str, cuda_graphs: bool | None = None) -> str:
    """The engine that "auto" stands for.

    PyTorch where only it can serve, or where it is installed and a dtype is asked for or the processor multiplies
    bfloat16. On one Zen 5 core it decodes 768x512 in 0.34 of ONNX Runtime's time in bfloat16, and in the same time in
    float32; to import it takes 1.4 s.
    """
    if _only_torch(bundle, device, dtype, cuda_graphs):
        return "torch"
    return "torch" if has_torch() and (dtype != "auto" or has_bfloat16()) else "onnx"


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def has_bfloat16() -> bool:
    """Whether the processor multiplies it natively.

    Where it is emulated it is slow: convolutions ran at 16 GFLOP/s against 112 in float32 (two Zen 3 cores).
    """
    from .. import _native

    return bool(_native.cpu()["bfloat16"])


def _only_torch(bundle: Bundle, device: str, dtype: str, cuda_graphs: bool | None) -> str:
    """What of these can't be had from ONNX Runtime; empty if all can."""
    if bundle.config.get("sizes") is not None:
        return f"the model {bundle.name!r}"
    if device not in ONNX_DEVICES:
        return f"device {device!r}"
    if dtype not in ONNX_DTYPES:
        return f"dtype {dtype!r}"
    if cuda_graphs:
        return "cuda_graphs"
    try:
        graphs.find(bundle)
    except WeightsError:
        return f"{bundle.folder}, which has no ONNX graphs,"
    return ""
