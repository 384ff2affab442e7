"""The networks of `lite` as ONNX graphs of any size, which ONNX Runtime runs without PyTorch.

A graph holds no weights. It names the float16 tensors of the weights' files and casts them to float32, which ONNX
Runtime does once, as it loads the graph. The entropy coder stays outside. docs/onnx.md says what each graph takes.
"""

from __future__ import annotations

import copy
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..entropy import MAX_VALUE
from ..errors import WeightsError
from ..extras import require
from ..files import exists_error, write_file
from ..weights import Bundle, graphs
from ..weights.bundle import Place
from ..weights.description import DESCRIPTION
from .blocks import Fidelity
from .coding import quantise
from .files import read_model
from .flow import Flow
from .model import SodecModel
from .noise import place_noise

OPSET = 18
TOLERANCE = 1e-4  # of a float32 graph against PyTorch; of integers, the share that may differ
TRACED, CHECKED = (7, 10), (12, 5)  # cells of y, down and across
QUALITY = 30.0  # that graphs are checked at
Outputs = tuple[Tensor, ...]


class Exported(NamedTuple):
    """A graph that was written."""

    name: str
    bytes: int
    error: float  # the largest difference from PyTorch in float32; of integers, the share that differs


class Graph(nn.Module):
    """One graph: names of its inputs and outputs, and in `forward` what is traced. `dtype` is that of the networks."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: SodecModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype


class Analysis(Graph):
    """E: pixels (1, H, W, 3) uint8 to y."""

    inputs, outputs = ("pixels",), ("y",)

    def forward(self, pixels: Tensor) -> Outputs:
        picture = pixels.permute(0, 3, 1, 2).float() / 255
        return (self.model.analysis(picture.to(self.dtype)).float(),)


class HyperAnalysis(Graph):
    """H_a: y to z, rounded."""

    inputs, outputs = ("y",), ("z",)

    def forward(self, y: Tensor) -> Outputs:
        z = self.model.hyper_analysis(y.to(self.dtype)).float()
        return (z.round().clamp(-MAX_VALUE, MAX_VALUE).to(torch.int32),)


class Quantise(Graph):
    """y to its symbols, 0 where nothing is `coded`. What rounding leans towards zero by is `deadzone` (1,)."""

    inputs, outputs = ("y", "z", "quality", "coded", "deadzone"), ("symbols",)

    def forward(self, y: Tensor, z: Tensor, quality: Tensor, coded: Tensor, deadzone: Tensor) -> Outputs:
        def rounded(scaled: Tensor) -> Tensor:
            scaled = (scaled - deadzone * scaled.sign()).round().clamp(-MAX_VALUE, MAX_VALUE)
            return torch.where(coded, scaled, 0.0)

        mean = self.model.mean(z.to(self.dtype)).float()[..., : y.shape[-2], : y.shape[-1]]
        gain = self.model.gain(quality).exp()[:, :, None, None]
        return (quantise(y - mean, mean, gain, self.model.context, rounded)[0].to(torch.int32),)


class Dequantise(Graph):
    """Symbols to y_hat."""

    inputs, outputs = ("symbols", "z", "quality"), ("y_hat",)

    def forward(self, symbols: Tensor, z: Tensor, quality: Tensor) -> Outputs:
        return (self.model.dequantise(symbols, z.to(self.dtype), quality),)


class FidelityDecoder(Graph):
    """D_a: y_hat to the fidelity picture, folded, and the features that guide the rest of the decoder."""

    inputs, outputs = ("y_hat", "quality"), ("fidelity", "at_16", "at_8", "at_4")

    def forward(self, y_hat: Tensor, quality: Tensor) -> Outputs:
        pixels, features = self.model.fidelity(y_hat.to(self.dtype), quality)
        return (pixels.float(), *(feature.float() for feature in features))


class Decoder(Graph):
    """The rest of the decoder: y_hat, noise and what D_a gave to the final picture, folded."""

    inputs, outputs = ("y_hat", "quality", "noise", *FidelityDecoder.outputs), ("picture",)

    def forward(
        self, y_hat: Tensor, quality: Tensor, noise: Tensor, fidelity: Tensor, at_16: Tensor, at_8: Tensor, at_4: Tensor
    ) -> Outputs:
        y_hat, noise, pixels, *features = (x.to(self.dtype) for x in (y_hat, noise, fidelity, at_16, at_8, at_4))
        known = Fidelity(pixels, tuple(features))
        return (Flow(self.model, y_hat, quality, noise=noise, fidelity=known).run().pixels.float(),)


PARTS: dict[str, type[Graph]] = {
    "analysis": Analysis, "hyper_analysis": HyperAnalysis, "quantise": Quantise, "dequantise": Dequantise,
    "fidelity": FidelityDecoder, "decoder": Decoder,
}  # fmt: skip
# Axes of any size. Cells are counted by y; pictures have 16 pixels a cell, z has a quarter of the cells.
DYNAMIC = {"pixels": (1, 2), "quality": (), "deadzone": ()}
ROWS_AND_COLUMNS = (2, 3)


def export(
    bundle: Bundle, folder: Path, *, float16: bool = False, with_weights: bool = True, overwrite: bool = False,
    say: Callable[[Exported], None] = lambda exported: None,
) -> None:  # fmt: skip
    """Writes the graphs of a model, each checked against PyTorch, and its weights unless they are in the folder.

    Parameters
    ----------
    float16
        Networks compute in float16; inputs and outputs stay as they are.
    with_weights
        False writes graphs that know their tensors by name alone, for whoever loads them from elsewhere.
    overwrite
        Replaces files that exist; without it one is an `OutputError`, before anything is written.
    say
        Is called after each graph.

    Raises
    ------
    WeightsError
        The model is not of lite's architecture, or a float32 graph differs from PyTorch by more than `TOLERANCE`.
    MissingPackageError
        A package of the extra "onnx" is not installed.
    """
    for module in ("onnxruntime", "onnx", "onnxscript"):
        require(module, "exporting ONNX graphs", "'sodec[onnx]'")
    if bundle.config.get("sizes") is not None:
        raise WeightsError(f"{bundle.name} can't be exported as ONNX graphs, which only lite's architecture has")
    files = [] if not with_weights or folder.resolve() == bundle.folder.resolve() else [DESCRIPTION, *bundle.files]
    for name in (*map(graphs.file_of, PARTS), *files):
        if not overwrite and (folder / name).exists():
            raise exists_error(folder / name)
    model = read_model(bundle).requires_grad_(False)
    made, tensors, places = {}, bundle.tensors(), bundle.places()
    for name, part in PARTS.items():
        data = _graph(part, model, float16, places, bundle, with_weights)
        error = difference(part, model, graphs.session(data, tensors), CHECKED)
        if not float16 and error > TOLERANCE:
            raise WeightsError(f"the graph {name} differs from PyTorch by {error:.2g}, more than {TOLERANCE:g}")
        made[name] = Exported(name, len(data), error), data
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(bundle.folder / file, folder / file)
    for name, (exported, data) in made.items():
        write_file(folder / graphs.file_of(name), data, overwrite=overwrite)
        say(exported)


def difference(part: type[Graph], model: SodecModel, session: Any, cells: tuple[int, int]) -> float:
    """The most that an output differs from PyTorch's in float32, at a size; of integers, the share that differs."""
    inputs = samples(model, *cells)
    given = {name: inputs[name] for name in part.inputs}
    with torch.inference_mode():
        expected = [output.numpy() for output in part(model, torch.float32)(*given.values())]
    actual = session.run(part.outputs, {name: value.numpy() for name, value in given.items()})
    return max(map(_difference, actual, expected, part.outputs))


def _difference(actual: np.ndarray, expected: np.ndarray, name: str) -> float:
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        raise WeightsError(f"{name} is {actual.dtype} {actual.shape}, not {expected.dtype} {expected.shape}")
    return float((actual != expected).mean() if actual.dtype == np.int32 else np.abs(actual - expected).max())


@torch.inference_mode()
def samples(model: SodecModel, height: int, width: int) -> dict[str, Tensor]:
    """Every input of every graph, as coding a random picture of so many cells gives them."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "pixels": torch.randint(256, (1, 16 * height, 16 * width, 3), generator=generator, dtype=torch.uint8),
        "quality": torch.tensor([QUALITY]),
        "deadzone": torch.tensor([0.01]),
        "coded": torch.rand(1, model.config.y_channels, height, width, generator=generator) < 0.8,
        "noise": torch.from_numpy(place_noise(model.config.noise, 4 * height, 4 * width)[None]),
    }
    for part in (Analysis, HyperAnalysis, Quantise, Dequantise, FidelityDecoder):
        outputs = part(model, torch.float32)(*(made[name] for name in part.inputs))
        made |= dict(zip(part.outputs, outputs, strict=True))
    return made


def _graph(
    part: type[Graph], model: SodecModel, float16: bool, places: Mapping[str, Place], bundle: Bundle, bound: bool
) -> bytes:
    """The graph as bytes. Its tensors lie in the weights' files if it is `bound`, else each at its own name."""
    import onnx

    dtype = torch.float16 if float16 else torch.float32
    traced = part(_halved(model) if float16 else model, dtype)
    inputs = samples(model, *TRACED)
    auto = torch.export.Dim.AUTO
    shapes = tuple(dict.fromkeys(DYNAMIC.get(name, ROWS_AND_COLUMNS), auto) for name in part.inputs)
    with _quiet():
        program = torch.onnx.export(
            traced, tuple(inputs[name] for name in part.inputs), input_names=part.inputs, output_names=part.outputs,
            dynamic_shapes=shapes, opset_version=OPSET, optimize=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    _name_weights(proto, places, bound)
    _strip(proto)
    onnx.helper.set_model_props(proto, graphs.properties(bundle, float16))
    return proto.SerializeToString()


def _name_weights(proto: Any, places: Mapping[str, Place], bound: bool) -> None:
    """Makes the initialisers references to the tensors in the files, cast to what the graph computes in."""
    from onnx import TensorProto, helper

    casts, renamed = [], {}
    for tensor in proto.graph.initializer:
        traced, name = tensor.name, tensor.name.removeprefix("model.")
        place = places[name]
        kind = tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type, tensor.data_location = name, TensorProto.FLOAT16, TensorProto.EXTERNAL
        tensor.dims.extend(place.shape)
        if bound:
            location = {"location": place.file, "offset": place.offset, "length": place.length}
        else:
            location = {"location": name, "length": place.length}
        for key, value in location.items():
            tensor.external_data.add(key=key, value=str(value))
        renamed[traced] = name if kind == TensorProto.FLOAT16 else f"{name}/float32"
        if kind != TensorProto.FLOAT16:
            casts.append(helper.make_node("Cast", [name], [renamed[traced]], to=kind))
    nodes = list(proto.graph.node)
    for node in nodes:
        for number, name in enumerate(node.input):
            node.input[number] = renamed.get(name, name)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])


def _strip(proto: Any) -> None:
    """Drops what no runtime needs, which is nine tenths of a traced graph: where each node comes from."""
    del proto.graph.value_info[:], proto.metadata_props[:], proto.graph.metadata_props[:]
    for node in proto.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]


def _halved(model: SodecModel) -> SodecModel:
    """The model in float16, but for the gain: a rounded one is not that of the stored index offsets."""
    halved = copy.deepcopy(model).half()
    halved.gain.float()
    return halved


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on operators and on the names of sizes."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
