"""The engine of ONNX Runtime: `lite` on a CPU, without PyTorch."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from .. import _native, memory
from ..errors import DeviceError
from ..models import ModelConfig
from ..weights import Bundle, graphs
from . import fitting
from .engine import Coefficients, Engine, Features, Planes

FOLD = 4  # of the graphs' pictures
FIDELITY_OUTPUTS = ["fidelity", "at_16", "at_8", "at_4"]  # which the rest of the decoder takes
FLOAT32 = np.dtype(np.float32)
READ = 3  # times the files' size is taken for the weights: as they are, in float32, and as ONNX Runtime packs them


class OnnxEngine(Engine):
    """The graphs of a model, each loaded when it is first needed.

    Raises `WeightsError` where the weights have no graphs, and `MissingPackageError` without ONNX Runtime.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, *, tile: int | None = None, threads: int | None = None) -> None:
        config = ModelConfig.from_dict(dict(bundle.config))
        super().__init__(bundle.coding, tile, config.noise)
        self.config = config
        self.bundle, self.threads, self.device, self.dtype = bundle, threads or processors(), "cpu", "float32"
        fitting.check_weights(bundle.name, self.device, memory.free(), READ * bundle.size)
        version = graphs.runtime().__version__
        self.prepared = f"{bundle.name} by ONNX Runtime {version} on {self.device}, {self.dtype}"
        self._graphs = graphs.find(bundle)
        self._sessions: dict[str, Any] = {}
        self._loading = threading.Lock()

    def check(self, height: int, width: int, beside: int) -> None:
        fitting.check(self.config, self.device, memory.free(), FLOAT32, height, width, beside)

    def check_encoding(self, width: int, height: int, *, transparent: bool, keeps_y: bool) -> None:
        fitting.check_encoding(
            self.config, self.device, memory.free(), FLOAT32, width, height, transparent=transparent, keeps_y=keeps_y
        )

    def run(self, graph: str, outputs: list[str] | None = None, /, **inputs: np.ndarray) -> list[Any]:
        """All outputs of a graph, or these; docs/onnx.md says what each takes and gives."""
        session = self.session(graph)
        try:
            return list(session.run(outputs, inputs))
        except Exception as error:  # ONNX Runtime's have no base of their own
            if memory.is_out_of_memory(error):
                raise MemoryError(str(error)) from None
            raise DeviceError(f"ONNX Runtime could not run {graph}: {str(error).splitlines()[0]}") from None

    def session(self, graph: str) -> Any:
        """ONNX Runtime's session of a graph; several threads may run it at once."""
        if graph not in self._sessions:
            with self._loading:
                if graph not in self._sessions:
                    self._sessions[graph] = graphs.load(self._graphs[graph], self.bundle, self.threads)
        return self._sessions[graph]

    # -- encoding

    def coefficients(self, pixels: np.ndarray, rows: slice, columns: slice) -> Coefficients:
        (y,) = self.run("analysis", pixels=np.ascontiguousarray(pixels)[None])
        y = np.ascontiguousarray(y[..., rows, columns])
        (z,) = self.run("hyper_analysis", y=y)
        return Coefficients(z[0].astype(np.int16), y)

    def quantise(
        self, coefficients: Coefficients, quality: float, coded: np.ndarray, deadzone: float = 0.0
    ) -> np.ndarray:
        z, y = coefficients
        (symbols,) = self.run(
            "quantise", y=y, z=z[None].astype(np.int32), quality=_number(quality), coded=coded[None],
            deadzone=_number(deadzone),
        )  # fmt: skip
        return np.asarray(symbols[0].astype(np.int16))

    # -- decoding

    def dequantise(self, z: np.ndarray, y: np.ndarray, quality: float, *, content: bool = True) -> Features:
        symbols, z = (values[None].astype(np.int32) for values in (y, z))
        return tuple(self.run("dequantise", symbols=symbols, z=z, quality=_number(quality)))

    def synthesise(
        self, features: Features, quality: float, fidelity: float, noise: float = 1.0, corner: tuple[int, int] = (0, 0)
    ) -> Planes:
        inputs = {"y_hat": features[0], "quality": _number(quality)}
        if fidelity == 1:
            with self.stage("fidelity"):
                return planes_of(*self.run("fidelity", ["fidelity"], **inputs))
        drawn = self.noise(features[0], noise, corner)
        with self.stage("networks"):
            given = dict(zip(FIDELITY_OUTPUTS, self.run("fidelity", FIDELITY_OUTPUTS, **inputs), strict=True))
            (full,) = self.run("decoder", noise=drawn, **inputs, **given)
        planes = planes_of(full)
        if fidelity > 0:
            faithful = planes_of(given["fidelity"]).values.clip(-0.5, 0.5)
            self.blend(planes.values, faithful, np.float32(fidelity), -0.5, 0.5)
        return planes

    # -- arrays

    def empty(self, like: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.empty((1, like.shape[1], height, width), like.dtype)

    def to_host(self, features: np.ndarray) -> np.ndarray:
        return features

    def from_host(self, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        return values

    # -- pixels

    def blendable(self, planes: Planes) -> Planes:
        return planes

    def blend(self, values: np.ndarray, other: np.ndarray, share: np.ndarray, low: float, high: float) -> None:
        np.clip(values, low, high, out=values)
        values += share * (other - values)

    def clipped(self, values: np.ndarray, low: float, high: float) -> np.ndarray:
        return values.clip(low, high)

    def constant(self, values: np.ndarray) -> np.ndarray:
        return values

    def canvas(self, height: int, width: int) -> np.ndarray:
        return np.empty((height, width, 3), np.uint8)

    def paint(self, planes: Planes, top: int, left: int, shrink: int, grey: bool, part: np.ndarray) -> None:
        _native.pixels(planes.values, planes.offset, top, left, shrink, grey, part, self.threads)


def processors() -> int:
    """How many this process may use, or as many as OMP_NUM_THREADS says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(named)) if named.isdecimal() and int(named) > 0 else allowed


def planes_of(folded: np.ndarray) -> Planes:
    """A picture as the graphs give it, (1, 48, H/4, W/4) less 0.5."""
    return Planes(folded.reshape(3, FOLD, FOLD, *folded.shape[2:]), 0.5)


def _number(value: float) -> np.ndarray:
    return np.array([value], np.float32)
