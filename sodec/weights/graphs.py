"""ONNX graphs of a model, which `sodec export-onnx` makes, and how ONNX Runtime loads them. Imports no torch.

Those of the bundled models are in the package, without weights, and serve all weights of the same sizes.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import memory
from ..errors import WeightsError
from ..extras import require
from .bundle import BUNDLED, Bundle, bundled_models

FORMAT = 2  # of what the graphs take and give
SIZES = "sodec.sizes"


def file_of(graph: str) -> str:
    """The name of a graph's file."""
    return f"{graph}.onnx"


def sizes_of(bundle: Bundle) -> str:
    """Names the sizes that a graph is traced with: those of the configuration, whatever the model is called."""
    sizes = {key: value for key, value in bundle.config.items() if key != "name"}
    return hashlib.sha256(json.dumps([FORMAT, sizes], sort_keys=True).encode()).hexdigest()[:16]


def properties(bundle: Bundle, float16: bool) -> dict[str, str]:
    """What a graph says of itself."""
    return {SIZES: sizes_of(bundle), "sodec.computes": "float16" if float16 else "float32"}


def find(bundle: Bundle, *, by_name: bool = False) -> Mapping[str, Path]:
    """The files of the graphs that fit a bundle: its own, or those of a model in the package of the same sizes.

    With `by_name` only graphs that know tensors by name alone, not by their place in a file.

    Raises `WeightsError` where there are none.
    """
    for folder in (bundle.folder, *(BUNDLED / name for name in bundled_models())):
        paths = {path.stem: path for path in folder.glob("*.onnx")}
        if paths and _fit(next(iter(paths.values())), bundle, by_name):
            return paths
    kind, option = ("ONNX graphs without weights", " --without-weights") if by_name else ("ONNX graphs", "")
    raise WeightsError(
        f"{bundle.folder} has no {kind}, and the package none of these sizes: `sodec export-onnx{option}` writes them"
        + ("" if by_name else ", or run it by PyTorch")
    )


def _fit(path: Path, bundle: Bundle, by_name: bool) -> bool:
    try:
        graph = path.read_bytes()
        return properties_of(graph).get(SIZES) == sizes_of(bundle) and not (by_name and _names_files(graph))
    except (OSError, ValueError):
        return False


def load(path: Path, bundle: Bundle, threads: int = 1) -> Any:
    """The session of a graph with the weights of a bundle. `WeightsError` where the file is damaged or does not fit."""
    try:
        graph = path.read_bytes()
        return session(graph, bundle.tensors(weights_of(graph)), threads)
    except OSError as error:
        raise WeightsError(f"graph {path} can't be read: {error.strerror}") from None
    except KeyError as error:
        raise WeightsError(f"graph {path} needs {error.args[0]!r}, which {bundle.folder} does not have") from None
    except ValueError as error:
        raise WeightsError(f"graph {path} can't be read: {error}") from None
    except Exception as error:  # ONNX Runtime's have no base of their own
        if memory.is_out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise WeightsError(f"graph {path} can't be loaded: {str(error).splitlines()[0]}") from None


def session(graph: bytes, tensors: Mapping[str, np.ndarray], threads: int = 1) -> Any:
    """ONNX Runtime's session of a graph with these weights."""
    ort = runtime()
    options = ort.SessionOptions()
    _share_memory(ort)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    # Waiting threads sleep: with another program on the machine those that spin made a decode 1.3 times as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    names = weights_of(graph)
    options.add_external_initializers(names, [ort.OrtValue.ortvalue_from_numpy(tensors[name]) for name in names])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@functools.cache
def _share_memory(ort: Any) -> None:
    """Lets the sessions of this process work in the same memory, one after another, where each would keep its own.

    ONNX Runtime gives none of it back between runs: decoding 1920x1080 pixels peaked at 0.53 GB, and at 0.39 so.
    Sessions of other programs in this process are as before, unless they ask for shared memory too.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(RuntimeError):  # of older versions where another program of this process has registered one, to share
        ort.create_and_register_allocator(place, None)


def runtime() -> Any:
    """The package onnxruntime. `MissingPackageError` where it is not installed."""
    return require("onnxruntime", "running networks without PyTorch", "onnxruntime")


# The fields of ONNX's protocol buffers that are read here.
MODEL_GRAPH, MODEL_PROPERTY, GRAPH_INITIALIZER, TENSOR_NAME, TENSOR_PLACE = 7, 14, 5, 8, 13
PROPERTY_KEY, PROPERTY_VALUE = 1, 2  # of a graph's properties, and of a tensor's place


def weights_of(graph: bytes) -> list[str]:
    """Names of the tensors that a graph needs; ONNX Runtime takes no others. Raises `ValueError` where it is none."""
    return [_text(tensor, TENSOR_NAME) for tensor in _tensors(graph)]


def _names_files(graph: bytes) -> bool:
    """Whether tensors are places in files, as `sodec export-onnx` writes them unless it is `--without-weights`."""
    return any(
        _text(entry, PROPERTY_KEY) == "offset" for tensor in _tensors(graph) for entry in _parts(tensor, TENSOR_PLACE)
    )


def _tensors(graph: bytes) -> Iterator[memoryview]:
    return (tensor for part in _parts(memoryview(graph), MODEL_GRAPH) for tensor in _parts(part, GRAPH_INITIALIZER))


def properties_of(graph: bytes) -> dict[str, str]:
    """What a graph says of itself, as `properties` had it. Raises `ValueError` where it is none."""
    entries = _parts(memoryview(graph), MODEL_PROPERTY)
    return {_text(entry, PROPERTY_KEY): _text(entry, PROPERTY_VALUE) for entry in entries}


def _text(data: memoryview, field: int) -> str:
    return "".join(bytes(part).decode() for part in _parts(data, field))


def _parts(data: memoryview, field: int) -> Iterator[memoryview]:
    return (part for number, part in _messages(data) if number == field)


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and contents of the fields of a protocol buffer that have a length; others are passed over."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            if place >= len(data):
                raise ValueError("the graph ends within a field")
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        if key & 7 == 2:
            length = varint()
            if place + length > len(data):
                raise ValueError("the graph ends within a field")
            yield key >> 3, data[place : place + length]
            place += length
        elif key & 7 == 0:
            varint()
        elif key & 7 in (1, 5):
            place += 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"a field of the graph has the unknown type {key & 7}")
