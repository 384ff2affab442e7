"""ONNX graphs of a model, which `sodec export-onnx` makes, and how ONNX Runtime loads them. Imports no torch.

Those of the bundled models are in the package, without weights, and serve all weights of the same sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..extras import require
from .bundle import Bundle

FORMAT = 1  # of what the graphs take and give
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


def session(graph: bytes, tensors: Mapping[str, np.ndarray], threads: int = 0) -> Any:
    """ONNX Runtime's session of a graph with these weights; 0 threads are as many as there are cores."""
    ort = require("onnxruntime", "running ONNX graphs", "onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    names = weights_of(graph)
    options.add_external_initializers(names, [ort.OrtValue.ortvalue_from_numpy(tensors[name]) for name in names])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def weights_of(graph: bytes) -> list[str]:
    """Names of the tensors that a graph needs; ONNX Runtime takes no others. Raises `ValueError` where it is none."""
    data = memoryview(graph)
    names = []
    for field, part in _messages(data):
        if field == 7:  # of ModelProto: graph
            for inner, tensor in _messages(part):
                if inner == 5:  # of GraphProto: initializer
                    names += [bytes(name).decode() for number, name in _messages(tensor) if number == 8]
    return names


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
